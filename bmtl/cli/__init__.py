"""The command line: ``bmtl advise``, ``fit``, ``report`` and ``predict``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bmtl.cli.parser import UsageError, parser
from bmtl.errors import ConvergenceWarning, FitError, TaskError, TaskWarning

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after the program's name. Default: those of the process.

    Returns
    -------
    int
        0, or 1 if the data or the fit failed, 2 if the words make no sense (argparse exits by itself where it sees
        that), 130 if interrupted. An error is one line on standard error; with ``--debug`` it is raised.
    """
    options = parser().parse_args(argv)
    try:
        with _told(options.debug):
            # What computes is imported once it is clear that something is to be computed.
            from bmtl.cli import commands

            commands.COMMANDS[options.command](options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has read enough; nothing may be flushed at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if options.debug:
            raise
        expected = isinstance(error, (UsageError, TaskError, FitError, OSError, ValueError))
        _say(f"error: {'' if expected else f'{type(error).__name__} (--debug shows where): '}{error}")
        return USAGE if isinstance(error, UsageError) else FAILED
    return DONE


@contextmanager
def _told(debug: bool) -> Iterator[None]:
    """Show bmtl's warnings as one line each, and no others; all of them as they are when debugging."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(f"warning: {message}")

    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            for kind in (TaskWarning, ConvergenceWarning):
                warnings.simplefilter("always", kind)
            warnings.showwarning = show
        yield


def _say(text: str) -> None:
    print("bmtl:", " ".join(text.split()), file=sys.stderr)


__all__ = ["main"]
