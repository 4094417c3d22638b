"""Compiled programs that are kept for later fits of the same structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")


def kept(store: dict[Any, Made], key: Any, make: Callable[[], Made], most: int) -> Made:
    """What the store holds under a key, made if it does not; the one used least recently goes when there are too many.

    A key that cannot be hashed, as where a part of a model cannot, is not kept.
    """
    try:
        found = store.pop(key, None)
    except TypeError:
        return make()
    # The one last used comes last.
    store[key] = found or make()
    if len(store) > most:
        del store[next(iter(store))]
    return store[key]
