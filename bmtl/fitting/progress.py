"""What is seen and kept of a fit under way: bars that vanish when it is done, and marks to go on from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from bmtl.fitting.checkpoint import Marks


@dataclass(frozen=True)
class Progress:
    """Whether and how to show progress, and where to leave marks of it.

    Parameters
    ----------
    shown : bool or None
        None: only where standard error is a terminal.
    marks : Marks
        Of one fit. Default: none are left.
    """

    shown: bool | None = None
    marks: Marks = field(default_factory=Marks)

    @property
    def visible(self) -> bool:
        return sys.stderr.isatty() if self.shown is None else self.shown

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Callable[..., None]]:
        """A bar; call what it gives with the number of units done and, by keyword, figures to show."""
        with tqdm(total=total, desc=title, leave=False, disable=not self.visible) as bar:

            def tick(done: int, **figures: Any) -> None:
                bar.update(done)
                bar.set_postfix(figures, refresh=False)

            yield tick
