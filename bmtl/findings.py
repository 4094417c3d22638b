"""What diagnostics found, task by task and pair by pair, in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Finding:
    """One sentence, with the figures it rests on.

    Attributes
    ----------
    diagnostic : str
        What found it, such as ``capacity``.
    tasks : tuple of str
        The task that it is about, or the two.
    says : str
    """

    diagnostic: str
    tasks: tuple[str, ...]
    says: str


@runtime_checkable
class Finds(Protocol):
    """A diagnostic's result."""

    def findings(self) -> list[Finding]:
        """What it found of tasks and pairs."""


def signed(value: float, se: float) -> str:
    """A gain ± its standard error, in words."""
    from bmtl.report.words import with_se  # which needs a plotting library

    return with_se(value, se, signed=True)
