"""Work that can be done apart: one after another here, or by the workers of an executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from typing import Any

from bmtl.errors import FitError

_TURN = threading.Lock()
"""Held during a call: handlers of Pyro and NumPyro and torch's random state belong to a process, not to a thread."""


def spread(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    executor: Executor | None,
    done: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """What a function gives for each tuple of arguments, in their order, whoever was done first.

    Parameters
    ----------
    function : callable
        Of a module, so that other processes find it. Its results must depend on its arguments only.
    executor : Executor, optional
        Whose workers do it. Default: here, one after another.
    done : callable, optional
        Called here with the position and the result of each call as soon as it is done.

    Raises
    ------
    FitError
        If a worker died and the executor cannot replace it, as that of a pool of processes.
    """
    found: list[Any] = [None] * len(calls)

    def keep(place: int, value: Any) -> None:
        found[place] = value
        if done is not None:
            done(place, value)

    if executor is None:
        for place, call in enumerate(calls):
            keep(place, function(*call))
        return found
    futures: dict[Any, int] = {}
    try:
        for place, call in enumerate(calls):
            futures[executor.submit(_in_turn, function, call)] = place
        for future in as_completed(futures):
            keep(futures[future], future.result())
    except BrokenExecutor as error:
        raise FitError(
            "a worker of the executor died, and all its work with it: start again with a new executor; what a "
            "checkpoint holds is not repeated"
        ) from error
    finally:
        for future in futures:
            future.cancel()
    return found


def _in_turn(function: Callable[..., Any], call: tuple[Any, ...]) -> Any:
    with _TURN:
        return function(*call)
