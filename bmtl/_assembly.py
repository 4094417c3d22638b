"""Tasks put together from checked parts, taken apart to be saved, and restored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bmtl import _inputs, _outcomes
from bmtl._frames import Array, Column, Encoder, listing, quoted
from bmtl._outcomes import Cells
from bmtl.errors import TaskError, TaskWarning
from bmtl.families import FAMILIES, Family

if TYPE_CHECKING:
    from bmtl.tasks import Tasks

# Notes in one warning before they are cut.
SHOWN_NOTES = 10

# Tasks shown by repr before they are cut.
SHOWN_TASKS = 20

CONSTANTS = ("X", "x_centre", "x_scale", "importance", "y_centre", "y_scale")
CELLS = ("rows", "y", "exposure")


def assemble(
    columns: tuple[Column, ...],
    raw: Array,
    names: tuple[str, ...],
    families: tuple[Family, ...],
    cells: Cells,
    importance: Array,
    common: tuple[float, float] | None = None,
    related: Sequence[str] = (),
) -> dict[str, Any]:
    """The fields of `Tasks` from encoded inputs and checked cells.

    Parameters
    ----------
    common : tuple of two floats, optional
        Centre and scale of the one outcome of all tasks, in the long layout.
    related : sequence of str
        What to warn of among the outcomes.
    """
    encoder, dropped = _inputs.keep_distinct(columns, raw)
    for what, notes in [("inputs dropped", dropped), ("related outcomes", related)]:
        if notes:
            # The stack level is that of the caller of from_frame, from_arrays or from_groups.
            warnings.warn(f"{what}: {listing(notes, SHOWN_NOTES)}", TaskWarning, stacklevel=3)
    X = encoder.from_array(raw)
    x_centre, x_scale = _inputs.mean_and_sd(X)
    rows, y, exposure = cells
    if common is None:
        scales = [_outcomes.outcome_scale(family, values) for family, values in zip(families, y, strict=True)]
    else:
        scales = [common] * len(names)
    return {
        "names": names, "families": families, "inputs": encoder.inputs, "X": X, "x_centre": x_centre,
        "x_scale": x_scale, "rows": rows, "y": y, "exposure": exposure, "importance": importance,
        "y_centre": np.array([centre for centre, _ in scales]), "y_scale": np.array([scale for _, scale in scales]),
        "layout": "wide" if common is None else "long", "encoder": encoder,
    }


def spec(tasks: Tasks) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """See `Tasks.spec`."""
    described = [
        {"name": family.name, "fields": {f.name: getattr(family, f.name) for f in fields(family)}}
        for family in tasks.families
    ]
    meta = {
        "names": list(tasks.names), "families": described, "layout": tasks.layout, "encoder": tasks.encoder.spec(),
        "noise_levels": list(tasks.noise_levels),
    }
    arrays: dict[str, NDArray[Any]] = {name: getattr(tasks, name) for name in CONSTANTS}
    arrays |= {name: np.concatenate(getattr(tasks, name)) for name in CELLS}
    if tasks.intervened:
        # Files have no booleans.
        arrays["intervened"] = np.concatenate(tasks.intervened).astype(np.int8)
    if tasks.noise_group is not None:
        arrays["noise_group"] = tasks.noise_group
    return meta, arrays | {"n_cells": tasks.n_cells}


def some(tasks: Tasks, at: list[int]) -> dict[str, Any]:
    """The fields that differ from task to task, at some of them."""
    listed = ("names", "families", *_by_cell(tasks))
    own: dict[str, Any] = {name: tuple(getattr(tasks, name)[t] for t in at) for name in listed}
    return own | {name: getattr(tasks, name)[at] for name in ("importance", "y_centre", "y_scale")}


def kept(tasks: Tasks, masks: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """The fields that have a value a cell, of the cells in one mask a task."""
    return {
        name: tuple(own[mask] for own, mask in zip(getattr(tasks, name), masks, strict=True))
        for name in _by_cell(tasks)
    }


def shuffled(tasks: Tasks, t: int, order: NDArray[np.int64]) -> dict[str, Any]:
    """The fields that differ from task to task, and a copy of task ``t`` whose cells change rows in this order."""
    own = some(tasks, [*range(tasks.n_tasks), t])
    for name in _by_cell(tasks):
        if name != "rows":
            own[name] = (*own[name][:-1], own[name][-1][order])
    return own


def _by_cell(tasks: Tasks) -> tuple[str, ...]:
    return (*CELLS, "intervened") if tasks.intervened else CELLS


def cells(tasks: Tasks) -> pd.DataFrame:
    """See `Tasks.cells`."""
    return pd.DataFrame({
        "row": np.concatenate(tasks.rows),
        "task": np.repeat(np.array(tasks.names, dtype=object), tasks.n_cells),
        "y": np.concatenate(tasks.y),
        "exposure": np.concatenate(tasks.exposure),
    })


def describe(tasks: Tasks) -> str:
    """Tasks in words, at most `SHOWN_TASKS` of them."""
    table: dict[str, Any] = {"task": tasks.names, "family": [family.name for family in tasks.families]}
    table["cells"] = tasks.n_cells
    if tasks.layout == "wide":
        table["missing"] = tasks.n_rows - tasks.n_cells
    shown = pd.DataFrame(table)[:SHOWN_TASKS].to_string(index=False)
    more = f"\nand {tasks.n_tasks - SHOWN_TASKS} more" if tasks.n_tasks > SHOWN_TASKS else ""
    inputs = f" × {len(tasks.inputs)} inputs ({listing(tasks.inputs)})" if tasks.inputs else ", without inputs"
    head = f"Tasks: {tasks.n_tasks} on {tasks.n_rows} rows{inputs}"
    return f"{head}\n{shown}{more}"


def restore(meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Tasks` from its `spec`; `TaskError` if a family is not known here."""
    unknown = [family["name"] for family in meta["families"] if family["name"] not in FAMILIES]
    if unknown:
        raise TaskError(f"unknown families: {quoted(unknown)}; known: {quoted(sorted(FAMILIES), shown=20)}")
    encoder = Encoder.from_spec(meta["encoder"])
    values = {name: np.asarray(array) for name, array in arrays.items()}
    ends = np.cumsum(values["n_cells"])[:-1]
    return {
        "names": tuple(meta["names"]),
        "families": tuple(FAMILIES[family["name"]](**family["fields"]) for family in meta["families"]),
        "inputs": encoder.inputs, "layout": meta["layout"], "encoder": encoder,
        "noise_group": values.get("noise_group"), "noise_levels": tuple(meta.get("noise_levels", ())),
        **{name: values[name] for name in CONSTANTS},
        **{name: tuple(np.split(values[name], ends)) for name in (*CELLS, "intervened") if name in values},
    }
