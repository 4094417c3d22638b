"""Tasks as the arrays that programs see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from bmtl import _inputs
from bmtl.arrangement import Arrangement, Plan
from bmtl.families import Family
from bmtl.tasks import Tasks


@dataclass(frozen=True)
class Block:
    """The cells of all tasks of one family: one vectorised observation site.

    Attributes
    ----------
    name : str
        Name of the site.
    family : Family
    tasks : ndarray of int, shape (T_f,)
        Which tasks.
    y, mask, exposure : array
        ``T_f × rows`` where tasks share rows ("wide"), ``rows`` where each row belongs to one task ("long").
    power : array or None
        What the cells' log-likelihoods are multiplied by, of a shape that broadcasts to that of ``y``; None for 1.
    """

    name: str
    family: Family
    tasks: np.ndarray
    y: Any
    mask: Any
    exposure: Any
    power: Any = None


@dataclass(frozen=True, eq=False)
class Design:
    """What a program must know of the tasks besides their arrays: names, families, prior scales.

    Attributes
    ----------
    names : tuple of str
    families : tuple of Family
    layout : {"wide", "long"}
    n_rows : int
    inputs : tuple of str
        Encoded inputs.
    intercept_loc, intercept_scale : ndarray, shape (P,)
        Prior of the intercept of each linear predictor; a task has one, or one a category.
    amplitude_scale, unit : ndarray, shape (T,)
        Prior scale of the function's amplitude, and the user's unit of each outcome.
    cause_loc, cause_scale : ndarray, shape (T,)
        Mean and standard deviation of modelled outcomes as they enter the linear predictors of other tasks.
    reference : dict
        Block name to what its family's own parameters are centred at (see `Family.reference`), a row a task.
    levels : tuple of str
        Groups of rows whose noises may differ; none if rows are not grouped.
    """

    names: tuple[str, ...]
    families: tuple[Family, ...]
    layout: str
    n_rows: int
    inputs: tuple[str, ...]
    intercept_loc: np.ndarray
    intercept_scale: np.ndarray
    amplitude_scale: np.ndarray
    unit: np.ndarray
    cause_loc: np.ndarray
    cause_scale: np.ndarray
    reference: Mapping[str, np.ndarray]
    levels: tuple[str, ...] = ()

    @classmethod
    def of(cls, tasks: Tasks) -> Design:
        _inputs.require_inputs(tasks, "a model")
        cells = [(family, tasks.y_std(t), tasks.exposure[t]) for t, family in enumerate(tasks.families)]
        if tasks.layout == "long":
            # Groups have one outcome: the prior of each is set at all of it, not at a group's own few cells.
            _, y, exposure = zip(*cells, strict=True)
            cells = [(tasks.families[0], np.concatenate(y), np.concatenate(exposure))]
        found = [
            (
                family.intercept(y, exposure), family.spread(y, exposure), family.reference(y, exposure),
                _standard(family, y),
            )
            for family, y, exposure in cells
        ]
        priors, spreads, references, standards = zip(*found * (tasks.n_tasks // len(found)), strict=True)
        groups = _groups(tasks.families)
        return cls(
            names=tasks.names,
            families=tasks.families,
            layout=tasks.layout,
            n_rows=tasks.n_rows,
            inputs=tasks.inputs,
            intercept_loc=np.concatenate([np.atleast_1d(loc) for loc, _ in priors]),
            intercept_scale=np.concatenate([np.broadcast_to(scale, np.shape(loc) or 1) for loc, scale in priors]),
            amplitude_scale=np.array(spreads),
            unit=np.asarray(tasks.y_scale),
            cause_loc=np.array([loc for loc, _ in standards]),
            cause_scale=np.array([scale for _, scale in standards]),
            reference={name: np.stack([references[t] for t in members]) for name, members in groups.items()},
            levels=tasks.noise_levels,
        )

    @property
    def n_tasks(self) -> int:
        return len(self.names)

    @property
    def n_inputs(self) -> int:
        return len(self.inputs)

    @property
    def n_predictors(self) -> tuple[int, ...]:
        """Linear predictors of each task."""
        return tuple(family.n_predictors for family in self.families)

    def plan(self, arrangement: Arrangement) -> Plan:
        """The arrangement as index arrays."""
        return _plan(arrangement, self.names, self.n_predictors)

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """Block name to the indices of its tasks; tasks of equal families (parameters included) share a block."""
        return _groups(self.families)

    @property
    def structure(self) -> tuple[Any, ...]:
        """All of it but the numbers, which `priors` has: designs of one structure have the same program."""
        return self.names, self.families, self.layout, self.n_rows, self.inputs, self.levels

    def priors(self) -> dict[str, np.ndarray]:
        """The numbers as arrays for a compiled program, which `given` puts back."""
        own = {name: getattr(self, name) for name in NUMBERS}
        own |= {f"reference/{name}": value for name, value in self.reference.items()}
        return {f"prior/{name}": np.asarray(value, dtype=np.float32) for name, value in own.items()}

    def given(self, values: Mapping[str, Any]) -> Design:
        """The design with the numbers of ``values``, which may be traced; as it is if they are not there."""
        if f"prior/{NUMBERS[0]}" not in values:
            return self
        own = {name: values[f"prior/{name}"] for name in NUMBERS}
        return replace(self, **own, reference={name: values[f"prior/reference/{name}"] for name in self.reference})


NUMBERS = ("intercept_loc", "intercept_scale", "amplitude_scale", "unit", "cause_loc", "cause_scale")
"""Fields of a design that hold an array each."""


def _standard(family: Family, y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of outcomes as they enter effects; 0 and 1 where they are standardised already."""
    if family.standardised:
        return 0.0, 1.0
    loc, scale = (float(value) for value in _inputs.mean_and_sd(family.entering(np, y)))
    return loc, scale if scale > 0 else 1.0


@lru_cache(maxsize=64)
def _plan(arrangement: Arrangement, names: tuple[str, ...], n_predictors: tuple[int, ...]) -> Plan:
    return arrangement.plan(names, n_predictors)


def _groups(families: tuple[Family, ...]) -> dict[str, np.ndarray]:
    labels: dict[str, np.ndarray] = {}
    for family in dict.fromkeys(families):
        name = family.name if family.name not in labels else f"{family.name}_{len(labels)}"
        labels[name] = np.array([t for t, f in enumerate(families) if f == family])
    return labels


def arrays(tasks: Tasks, design: Design) -> dict[str, np.ndarray]:
    """Observed cells as dense float32 arrays: ``x``, and ``y/…``, ``mask/…``, ``exposure/…`` a block.

    Outcomes with labels are int32 codes. Rows are the last dimension of everything but ``x`` (``rows × inputs``). In
    the long layout ``task`` holds the task of each row, and ``group`` its noise group where rows have one.
    """
    out: dict[str, np.ndarray] = {"x": tasks.Z.astype(np.float32)}
    wide = design.layout == "wide"
    if not wide:
        out["task"] = np.zeros(tasks.n_rows, dtype=np.int32)
    if tasks.noise_group is not None:
        out["group"] = tasks.noise_group.astype(np.int32)
    for name, members in design.groups.items():
        shape = (len(members), tasks.n_rows) if wide else (tasks.n_rows,)
        family = design.families[members[0]]
        y = np.full(shape, family.filler, dtype=family.dtype)
        mask = np.zeros(shape, dtype=bool)
        exposure = np.ones(shape, dtype=np.float32)
        for j, t in enumerate(members):
            at: Any = (j, tasks.rows[t]) if wide else tasks.rows[t]
            y[at] = tasks.y_std(t)
            mask[at] = True
            exposure[at] = tasks.exposure[t]
            if not wide:
                out["task"][at] = t
        out |= {f"y/{name}": y, f"mask/{name}": mask, f"exposure/{name}": exposure}
    return out


SEGMENT = 8
"""Rows of a segment: as many single-precision numbers as a wide register holds."""


def packed(task: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the long layout in segments of `SEGMENT`, each of one task: a gather a segment is less than one a row.

    Parameters
    ----------
    task : ndarray of int, shape (rows,)
        The task of each row.

    Returns
    -------
    tuple of ndarray, or None
        The row at each place of all segments, −1 where there is none, and the task of each segment. None where the
        places would be more than twice the rows.
    """
    order = np.argsort(task, kind="stable")
    tasks, counts = np.unique(task, return_counts=True)
    segments = -(-counts // SEGMENT)
    if segments.sum() * SEGMENT > 2 * len(task):
        return None
    first = np.repeat(SEGMENT * (np.cumsum(segments) - segments) - (np.cumsum(counts) - counts), counts)
    rows = np.full(segments.sum() * SEGMENT, -1)
    rows[first + np.arange(len(task))] = order
    return rows, np.repeat(tasks, segments).astype(np.int32)


def pack(values: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Arrays of the long layout at the places of `packed` segments; those without a row have no cell."""
    found = take_rows(values, np.maximum(rows, 0))
    return {name: own & (rows >= 0) if name.startswith("mask/") else own for name, own in found.items()}


def take_rows(values: Mapping[str, Any], index: Any) -> dict[str, Any]:
    """A minibatch: the same arrays at some rows; what has no rows stays as it is."""
    by_row = ("x", "task", "group")
    return {
        name: value if name.startswith(("prior/", "given/", "power"))
        else value[index] if name in by_row else value[..., index]
        for name, value in values.items()
    }


@dataclass(frozen=True)
class Data:
    """What a program is given: a design, the engine's arrays, and how many times these rows stand for all rows."""

    design: Design
    values: Mapping[str, Any]
    scale: Any = 1.0

    @property
    def x(self) -> Any:
        """Standardised inputs, ``rows × inputs``."""
        return self.values["x"]

    @property
    def task(self) -> Any | None:
        """Task of each row in the long layout, else None."""
        return self.values.get("task")

    @property
    def segment(self) -> Any | None:
        """Task of each segment of rows, where rows of the long layout come `packed`, else None."""
        return self.values.get("segment")

    def blocks(self) -> Iterator[Block]:
        power = self.values.get("power")
        for name, members in self.design.groups.items():
            yield Block(
                name=f"y_{name}",
                family=self.design.families[members[0]],
                tasks=members,
                y=self.values[f"y/{name}"],
                mask=self.values[f"mask/{name}"],
                exposure=self.values[f"exposure/{name}"],
                power=None if power is None else power[members][:, None] if self.task is None else power[self.task],
            )


def inputs_only(
    x: np.ndarray, design: Design, exposure: Any = 1.0, group: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Arrays with inputs and no outcomes, in the wide layout: every task at every row (for predictions).

    Parameters
    ----------
    exposure : float or array, shape (rows,) or (tasks, rows)
    group : ndarray of int, shape (rows,), optional
        Noise group of each row; linear predictors do not depend on it. Default: the first.
    """
    out = {"x": x.astype(np.float32)}
    if design.levels:
        out["group"] = np.zeros(len(x), dtype=np.int32) if group is None else group.astype(np.int32)
    exposures = np.broadcast_to(np.asarray(exposure, dtype=np.float32), (design.n_tasks, len(x)))
    for name, members in design.groups.items():
        family, shape = design.families[members[0]], (len(members), len(x))
        out[f"y/{name}"] = np.full(shape, family.filler, dtype=family.dtype)
        out[f"mask/{name}"] = np.ones(shape, dtype=bool)
        out[f"exposure/{name}"] = exposures[members]
    return out
