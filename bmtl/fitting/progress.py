"""Progress bars that vanish when they are done, and that do not appear where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


@dataclass(frozen=True)
class Progress:
    """Whether and how to show progress.

    Parameters
    ----------
    shown : bool or None
        None: only where standard error is a terminal.
    """

    shown: bool | None = None

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
