"""Pictures of what models expect before they have seen data: ``python docs/draw_pictures.py`` fills docs/pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import bmtl
from bmtl import EdgePrior, relations, replay
from bmtl.models import CausalTasks, Decoupled, Merged, SharedTrunk
from bmtl.prior import outcomes, prior_draws
from bmtl.report.style import STYLE
from bmtl.trunks import Fourier, Identity

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#222222"]
SMOOTH = Fourier(128)
PANELS = 4
CHAIN = EdgePrior([("task 1", "task 2"), ("task 2", "task 3")], forbidden=[("task 1", "task 3")])
LINES: dict[str, tuple[Any, int, int]] = {
    "shared_trunk": (SharedTrunk(Fourier(6)), 3, 1),
    "decoupled": (Decoupled(SMOOTH), 3, 1),
    "causal_tasks": (CausalTasks(SMOOTH, CHAIN), 3, 1),
    "merged": (Merged(SMOOTH, flipped=("task 3",)), 3, 2),
    "independent": (SharedTrunk(SMOOTH, relations.Independent()), 3, 3),
    "exchangeable": (SharedTrunk(Identity(), relations.Exchangeable()), 8, 1),
    "correlated": (SharedTrunk(SMOOTH, relations.Correlated()), 3, 2),
    "clustered": (SharedTrunk(SMOOTH, relations.Clustered()), 6, 1),
}
"""Model, number of tasks and seed of the pictures with one input."""

GRIDS: dict[str, tuple[Any, int]] = {
    "sparse": (SharedTrunk(Identity(), relations.Sparse(expected=2)), 3),
    "low_rank": (SharedTrunk(Identity(), relations.LowRank()), 1),
}
"""Model and seed of the pictures with many inputs."""


def example(x: np.ndarray, n_tasks: int) -> bmtl.Tasks:
    """Standardised Gaussian outcomes, which only set where the prior lies."""
    Y = np.random.default_rng(0).normal(size=(len(x), n_tasks))
    return bmtl.Tasks.from_arrays(x, Y, ["gaussian"] * n_tasks, names=[f"task {t + 1}" for t in range(n_tasks)])


def lines(name: str) -> None:
    """Functions and new outcomes of a few prior draws, over one input."""
    model, n_tasks, seed = LINES[name]
    x = np.linspace(-2.0, 2.0, 81)
    tasks = example(x[:, None], n_tasks)
    sites = prior_draws(model, tasks, PANELS, seed)
    # Where outcomes have causes, functions are what is there without them.
    alone = {site: 0.0 * value if site == "edge" else value for site, value in sites.items()}
    functions = replay.predictors_at(model, tasks, alone, tasks.Z)
    drawn = outcomes(model, tasks, sites, seed)
    fig, axes = plt.subplots(1, PANELS, figsize=(9.0, 2.3), layout="constrained", sharex=True)
    for draw, axis in enumerate(axes):
        for t, colour in zip(range(n_tasks), COLOURS, strict=False):
            own = (drawn[t][draw] - tasks.y_centre[t]) / tasks.y_scale[t]
            axis.plot(x[::4], own[::4], ".", color=colour, alpha=0.45, markersize=4)
            axis.plot(x, functions[draw, t], color=colour, label=tasks.names[t])
        axis.set_xlabel("input")
    axes[0].set_ylabel("outcome, standardised")
    if n_tasks <= 3:
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", handlelength=1.2)
    fig.savefig(Path(__file__).parent / "pictures" / f"{name}.png", dpi=150)
    plt.close(fig)


def grid(name: str) -> None:
    """Coefficients of 12 inputs in 6 tasks, of a few prior draws."""
    model, seed = GRIDS[name]
    rng = np.random.default_rng(1)
    tasks = example(rng.normal(size=(100, 12)), 6)
    sites = prior_draws(model, tasks, PANELS, seed)
    functions = np.stack(replay.linear_predictor(model, tasks, sites), axis=1)
    design = np.column_stack([np.ones(tasks.n_rows), tasks.Z])
    fig, axes = plt.subplots(1, PANELS, figsize=(9.0, 2.3), layout="constrained", sharey=True)
    for draw, axis in enumerate(axes):
        w = np.linalg.lstsq(design, functions[draw].T)[0][1:].T
        size = np.max(np.abs(w))
        axis.imshow(w, cmap="RdBu_r", vmin=-size, vmax=size, aspect="auto")
        axis.set_xticks([0, 5, 11], ["1", "6", "12"])
        axis.set_yticks(range(6), [str(t + 1) for t in range(6)])
        axis.set_xlabel("input")
    axes[0].set_ylabel("task")
    fig.savefig(Path(__file__).parent / "pictures" / f"{name}.png", dpi=150)
    plt.close(fig)


if __name__ == "__main__":
    with mpl.rc_context(STYLE):
        for each in LINES:
            lines(each)
        for each in GRIDS:
            grid(each)
