"""Which inputs each task may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl._frames import quoted
from bmtl.arrangement import Plan
from bmtl.data import Design
from bmtl.errors import TaskError

Inputs = Mapping[str, Iterable[str]] | Iterable[tuple[str, Iterable[str]]]
"""For some tasks the inputs that they may see."""


def pairs(inputs: Inputs) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Tasks and inputs as sorted tuples, which can be hashed and saved.

    Raises
    ------
    TaskError
        If a task is to see no input, or inputs are given by a single string.
    """
    given = dict(inputs)
    for task, names in given.items():
        if isinstance(names, str):
            raise TaskError(f"the inputs of task {task!r} must be a list of names, got the single string {names!r}")
    out = tuple((task, tuple(sorted(set(names)))) for task, names in sorted(given.items()))
    blind = [task for task, names in out if not names]
    if blind:
        raise TaskError(f"tasks that see no input: {quoted(blind)}")
    return out


@dataclass(frozen=True, eq=False)
class Views:
    """The inputs as the tasks see them: one view a distinct set of inputs, in which the others are at their mean.

    Standardised inputs have mean 0, so that a function of a view does not depend on what is not seen. Features are
    computed once a view, whatever the number of tasks.

    Attributes
    ----------
    seen : ndarray of bool, shape (V, d)
    view_of : ndarray of int, shape (T,)
        The view of each task.
    """

    seen: np.ndarray
    view_of: np.ndarray

    @classmethod
    def of(cls, inputs: Inputs, design: Design) -> Views:
        """Views of the tasks of a design; tasks not named see every input.

        An input column of levels names all of its indicators.

        Raises
        ------
        TaskError
            If a task or an input is unknown.
        """
        given = pairs(inputs)
        unknown = [task for task, _ in given if task not in design.names]
        if unknown:
            raise TaskError(f"inputs of unknown tasks: {quoted(unknown)}; the tasks are {quoted(design.names, 20)}")
        mask = np.ones((design.n_tasks, design.n_inputs), dtype=bool)
        for task, names in given:
            of = np.array([[own == name or own.startswith(f"{name}[") for own in design.inputs] for name in names])
            missing = [name for name, found in zip(names, of, strict=True) if not found.any()]
            if missing:
                raise TaskError(f"task {task!r}: unknown inputs {quoted(missing)}; known: {quoted(design.inputs, 20)}")
            mask[design.names.index(task)] = of.any(axis=0)
        seen, view_of = np.unique(mask, axis=0, return_inverse=True)
        return cls(seen, view_of.reshape(-1))

    @classmethod
    def all_of(cls, design: Design) -> Views:
        """One view, of all inputs, for all tasks."""
        return cls(np.ones((1, design.n_inputs), dtype=bool), np.zeros(design.n_tasks, dtype=int))

    def inputs(self, e: Any, x: Any) -> Any:
        """Rows of all views, one view after another, ``V·rows × d``."""
        if self.seen.all():
            return x
        return e.xp.reshape(x * e.asarray(self.seen)[:, None, :], (-1, x.shape[-1]))

    def functions(self, e: Any, f: Any, plan: Plan) -> Any:
        """The function that each linear predictor follows, ``P × rows``.

        Parameters
        ----------
        f : array, shape (H, V·rows)
            Functions of the heads at the rows of `inputs`.
        """
        n = len(self.seen)
        if n > 1:
            f = e.xp.reshape(f, (*f.shape[:-2], f.shape[-2] * n, -1))
        return e.take(f, plan.head_of * n + self.view_of[plan.task_of], -2)


__all__ = ["Inputs", "Views", "pairs"]
