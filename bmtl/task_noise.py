"""Reading the noises and weights of a fit's tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl import _frames, replay
from bmtl.errors import TaskError
from bmtl.model import noise_site, noises_a_task

if TYPE_CHECKING:
    from bmtl.results import Fit
    from bmtl.training.trained import Trained


def noise(fit: Fit) -> dict[str, np.ndarray]:
    """See `bmtl.Fit.noise`."""
    design, each, out = replay.design_of(fit.tasks), by_group(fit), {}
    for block, members in design.groups.items():
        # A program of one's own may have noises, but what they are called is not known.
        if design.families[members[0]].noise_name is None or not hasattr(fit.model, "noise"):
            continue
        own = fit.draws.sites.get(noise_site(block))
        for j, t in enumerate(members):
            name = fit.tasks.names[t]
            if own is None:
                out[name] = np.full(fit.draws.shape, fit.model.noise.value)
            elif each > 1:
                out[name] = own[:, :, j * each : (j + 1) * each] * design.unit[t]
            else:
                # A noise common to the tasks of a family is drawn once.
                out[name] = own[:, :, min(j, own.shape[2] - 1)] * design.unit[t]
    return {name: out[name] for name in fit.tasks.names if name in out}


def distinct(fit: Fit) -> dict[str, np.ndarray]:
    """`noise`, where one is common to the tasks of a family that of the first of them only."""
    design, found = replay.design_of(fit.tasks), dict(fit.noise)
    for block, members in design.groups.items():
        own = fit.draws.sites.get(noise_site(block))
        if own is not None and own.shape[2] == 1:
            for t in members[1:]:
                found.pop(fit.tasks.names[t], None)
    return found


def weights(fit: Fit, prob: float) -> pd.DataFrame:
    """See `bmtl.Fit.weights`."""
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    tasks, nothing = fit.tasks, np.array([np.nan])
    cells = [_cells(fit, t) for t in range(tasks.n_tasks)]
    there = [{level: own for level, own in each.items() if own.any()} for each in cells]
    fisher = replay.mean_information(fit.model, tasks, fit.flat, [list(own.values()) for own in there])
    means = [dict(zip(own, found, strict=True)) for own, found in zip(there, fisher, strict=True)]
    rows = []
    for t, (name, family) in enumerate(zip(tasks.names, tasks.families, strict=True)):
        known = name in fit.noise and family.noise_dims == 0
        for level in cells[t]:
            own = fit.noise[name] if known else nothing
            if known and level is not None:
                own = own[:, :, tasks.noise_levels.index(level)]
            weight = means[t].get(level, nothing)
            spread = [(value.mean(), *np.quantile(value, tails)) for value in (own, weight)]
            rows.append((name, level, family.name, *spread[0], *spread[1]))
    ends = ("", "_low", "_high")
    columns = ["task", "group", "family", *(f"noise{end}" for end in ends), *(f"weight{end}" for end in ends)]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], float))
    return table if by_group(fit) > 1 else table.drop(columns="group")


def by_group(fit: Fit | Trained) -> int:
    """Noises of each task."""
    prior: Any = getattr(fit.model, "noise", None)
    return noises_a_task(prior, replay.design_of(fit.tasks))


def new_groups(fit: Fit | Trained, group: Any, n: int) -> np.ndarray | None:
    """Positions of the groups of new rows.

    Raises
    ------
    TaskError
        If groups are needed and not given, or given and not needed, or not those of the tasks.
    """
    needed = by_group(fit) > 1
    if needed != (group is not None):
        levels = ", ".join(fit.tasks.noise_levels)
        raise TaskError(
            f"noises differ by group of rows: give the group of each new row, group=..., one of {levels}"
            if needed else "the model's noises do not differ by group of rows: leave group out"
        )
    return _frames.read_noise_groups(group, n, fit.tasks.noise_levels)[1] if needed else None


def _cells(fit: Fit, t: int) -> dict[str | None, np.ndarray]:
    """Masks of the cells of a task that share a noise, by group; without groups all of them, under None."""
    rows, group = fit.explained.rows[t], fit.tasks.noise_group
    if group is None or by_group(fit) == 1:
        return {None: np.ones(len(rows), dtype=bool)}
    return {level: group[rows] == g for g, level in enumerate(fit.tasks.noise_levels)}
