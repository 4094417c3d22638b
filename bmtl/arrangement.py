"""Arrangements: which tasks share a trunk, and which share a head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.errors import TaskError


@dataclass(frozen=True, eq=False)
class Plan:
    """An arrangement as index arrays for a given order of tasks.

    A task has P_t linear predictors (one, or one a category), and a head as many functions; all are counted through.

    Attributes
    ----------
    trunk_of_head : ndarray of int, shape (H,)
        Ascending.
    head_of : ndarray of int, shape (P,)
        The head of each linear predictor.
    task_of : ndarray of int, shape (P,)
        Its task; ascending.
    sign : ndarray, shape (P,)
        −1 where the task follows its head with the sign flipped, else 1.
    """

    trunk_of_head: np.ndarray
    head_of: np.ndarray
    task_of: np.ndarray
    sign: np.ndarray

    @property
    def n_heads(self) -> int:
        return len(self.trunk_of_head)

    @property
    def n_trunks(self) -> int:
        return int(self.trunk_of_head[-1]) + 1


@dataclass(frozen=True)
class Arrangement:
    """A partition of the tasks into trunks and, inside each trunk, into heads.

    Parameters
    ----------
    trunks : tuple of tuple of tuple of str
        ``trunks[i][j]`` names the tasks of head j on trunk i. Kept sorted, so that equal arrangements compare equal.
    flipped : frozenset of str
        Tasks that follow their head with the sign flipped. Only relative signs inside a head mean anything: the
        first task of a head is never flipped.

    Raises
    ------
    TaskError
        If a task stands twice, or a flipped task is unknown.

    Examples
    --------
    >>> from bmtl import Arrangement
    >>> print(Arrangement((((("a", "b")), ("c",)), (("d",),))))
    {a = b, c} | {d}
    """

    trunks: tuple[tuple[tuple[str, ...], ...], ...]
    flipped: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        trunks = tuple(sorted(tuple(sorted(tuple(sorted(head)) for head in trunk)) for trunk in self.trunks))
        names = [name for trunk in trunks for head in trunk for name in head]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise TaskError(f"these tasks stand more than once in the arrangement: {twice}")
        unknown = sorted(set(self.flipped) - set(names))
        if unknown:
            raise TaskError(f"these flipped tasks are not in the arrangement: {unknown}")
        flipped: set[str] = set()
        for trunk in trunks:
            for head in trunk:
                down = set(head) & self.flipped
                flipped |= set(head) - down if head[0] in down else down
        object.__setattr__(self, "trunks", trunks)
        object.__setattr__(self, "flipped", frozenset(flipped))

    @classmethod
    def shared(cls, names: Iterable[str]) -> Arrangement:
        """One trunk, a head a task."""
        return cls((tuple((name,) for name in names),))

    @classmethod
    def decoupled(cls, names: Iterable[str]) -> Arrangement:
        """A trunk a task."""
        return cls(tuple(((name,),) for name in names))

    @classmethod
    def merged(cls, names: Iterable[str], flipped: Iterable[str] = ()) -> Arrangement:
        """One trunk, one head."""
        return cls(((tuple(names),),), frozenset(flipped))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for trunk in self.trunks for head in trunk for name in head)

    def relation(self, a: str, b: str) -> str:
        """``merge``, ``weight`` or ``decouple``: what the arrangement says of two of its tasks."""
        place = {
            name: (i, j) for i, trunk in enumerate(self.trunks) for j, head in enumerate(trunk) for name in head
        }
        for name in (a, b):
            if name not in place:
                raise TaskError(f"task {name!r} is not in the arrangement; it holds {list(self.names)}")
        if place[a] == place[b]:
            return "merge"
        return "weight" if place[a][0] == place[b][0] else "decouple"

    def plan(self, names: Sequence[str], n_predictors: Sequence[int] | None = None) -> Plan:
        """Index arrays for tasks in that order.

        Parameters
        ----------
        n_predictors : sequence of int, optional
            Linear predictors of each task. Default: one each.

        Raises
        ------
        TaskError
            If the arrangement does not hold exactly these tasks, or tasks of one head differ in their number of
            linear predictors.
        """
        if set(names) != set(self.names):
            raise TaskError(
                f"the arrangement holds {sorted(self.names)}, but the tasks are {sorted(names)}"
            )
        width = dict(zip(names, n_predictors or [1] * len(names), strict=True))
        trunk_of_head: list[int] = []
        first: dict[str, int] = {}
        for i, trunk in enumerate(self.trunks):
            for head in trunk:
                if len({width[name] for name in head}) > 1:
                    counts = ", ".join(f"{name!r} {width[name]}" for name in head)
                    raise TaskError(f"tasks of one head need as many linear predictors each, but have: {counts}")
                first |= dict.fromkeys(head, len(trunk_of_head))
                trunk_of_head += [i] * width[head[0]]
        return Plan(
            trunk_of_head=np.array(trunk_of_head),
            head_of=np.concatenate([first[name] + np.arange(width[name]) for name in names]),
            task_of=np.repeat(np.arange(len(names)), [width[name] for name in names]),
            sign=np.concatenate([np.full(width[name], -1.0 if name in self.flipped else 1.0) for name in names]),
        )

    def to_json(self) -> dict[str, Any]:
        return {"trunks": self.trunks, "flipped": sorted(self.flipped)}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Arrangement:
        trunks = tuple(tuple(tuple(head) for head in trunk) for trunk in saved["trunks"])
        return cls(trunks, frozenset(saved["flipped"]))

    def __str__(self) -> str:
        def head(names: tuple[str, ...]) -> str:
            return " = ".join(f"−{name}" if name in self.flipped else name for name in names)

        return " | ".join("{" + ", ".join(head(names) for names in trunk) + "}" for trunk in self.trunks)
