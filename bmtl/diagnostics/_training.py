"""What the diagnostics of training share: runs of several seeds, and how well each predicts every held-out cell."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bmtl.arrangement import Arrangement
from bmtl.errors import FitError
from bmtl.fitting.devices import choose
from bmtl.fitting.workers import spread
from bmtl.tasks import Tasks
from bmtl.training.held_out import split
from bmtl.training.loop import Look, Path, Recipe, paths
from bmtl.training.network import Network
from bmtl.training.runs import Runs
from bmtl.trunks import Trunk

BLOCK = 4
"""Seeds, at least, that a worker of an executor trains side by side."""
ARMS = ("shared", "single")
"""One trunk for all tasks, and a trunk each."""


def arms(names: Sequence[str]) -> dict[str, Arrangement]:
    """The arrangement of each arm."""
    return dict(zip(ARMS, (Arrangement.shared(names), Arrangement.decoupled(names)), strict=True))


@dataclass(frozen=True, eq=False)
class Study:
    """Rows to train on, rows to judge by, and how networks are trained.

    Parameters
    ----------
    tasks : Tasks
    runs : int
        Runs have the seeds ``seed``, ``seed + 1`` and so on; they share the held-out rows.
    held_out : float
    device : str
    seed : int
    options : dict
        Fields of `bmtl.training.Recipe`.
    """

    train: Tasks
    held: Tasks | None
    recipe: Recipe
    seeds: tuple[int, ...]
    device: str

    @classmethod
    def of(
        cls, tasks: Tasks, runs: int, held_out: float, device: str, seed: int, options: dict[str, Any], least: int = 1
    ) -> Study:
        if runs < least:
            raise ValueError(f"runs must be ≥ {least}, got {runs}")
        train, held = split(tasks, held_out, seed)
        _, device = choose("pyro", device, "svi")
        return cls(train, held, Recipe(**options), tuple(range(seed, seed + runs)), device)

    def blocks(self) -> list[Study]:
        """Studies of some of the seeds each, which together have the same runs: for the workers of an executor.

        Batched products of torch have the same numbers whatever else is in the batch, but not those of a single one.
        """
        count = len(self.seeds) if self.recipe.sampling.batch_size else max(len(self.seeds) // BLOCK, 1)
        return [replace(self, seeds=tuple(map(int, own))) for own in np.array_split(self.seeds, count)]

    def judge(
        self, arms: Sequence[tuple[Trunk, Arrangement | None]], executor: Executor | None
    ) -> list[tuple[list[np.ndarray], np.ndarray]]:
        """Of each arm the `pointwise` of held-out cells, and the training losses at the end, ``runs × T``."""
        studies = [self] if executor is None else self.blocks()
        calls = [(own, trunk, arrangement) for trunk, arrangement in arms for own in studies]
        found = spread(_judged, calls, executor)
        each = [found[at : at + len(studies)] for at in range(0, len(found), len(studies))]
        return [
            ([np.concatenate(own) for own in zip(*cells, strict=True)], np.concatenate(losses))
            for cells, losses in (zip(*arm, strict=True) for arm in each)
        ]

    def follow(self, trunk: Trunk, arrangement: Arrangement | None, look: Look | None = None) -> list[Path]:
        """Train all runs."""
        network = Network(trunk, arrangement)
        found = paths(network, self.train, self.recipe, self.seeds, self.device, self.held, look)
        bad = [run for run, loss in enumerate(joined(found, "train")[-1]) if not np.isfinite(loss).all()]
        if bad:
            seeds = ", ".join(str(self.seeds[run]) for run in bad)
            raise FitError(f"a loss is not finite after training with seed {seeds}: lower the learning rate")
        return found


def _judged(study: Study, trunk: Trunk, arrangement: Arrangement | None) -> tuple[list[np.ndarray], np.ndarray]:
    found = study.follow(trunk, arrangement)
    assert study.held is not None
    return pointwise(found, study.held), joined(found, "train")[-1]


def joined(found: Sequence[Path], name: str) -> np.ndarray:
    """A field of all paths, ``epochs + 1 × runs × T``; what stopped early stays as it ended."""
    each = [getattr(path, name) for path in found]
    longest = max(len(own) for own in each)
    return np.concatenate([np.pad(own, [(0, longest - len(own)), (0, 0), (0, 0)], "edge") for own in each], axis=1)


def pointwise(found: Sequence[Path], tasks: Tasks) -> list[np.ndarray]:
    """Log predictive density of each task's cells, ``runs × cells``, in nats and the user's units.

    Noises that training held fixed are taken at their optimum on the cells trained on.
    """
    parts: list[list[np.ndarray]] = [[] for _ in tasks.names]
    for path in found:
        path.runs.profile(every=True)
        for t, own in enumerate(_cells(path.runs, tasks)):
            parts[t].append(own - np.log(tasks.y_scale[t]))
    return [np.concatenate(own) for own in parts]


@torch.no_grad()
def _cells(runs: Runs, tasks: Tasks) -> list[np.ndarray]:
    values = runs.on_device(tasks)
    engine, out = runs.run(values), {}
    for block in runs.blocks(values):
        found = engine.log_prob(block).cpu().numpy()
        for j, t in enumerate(block.tasks):
            out[t] = (found[:, j] if tasks.layout == "wide" else found)[:, tasks.rows[t]]
    return [out[t] for t in range(tasks.n_tasks)]


def of_runs(own: np.ndarray) -> float:
    """Variance over runs of the mean of their scores, ``runs × cells``; 0 for a single run."""
    return float(own.mean(axis=1).var(ddof=1) / len(own)) if len(own) > 1 else 0.0


def mean_and_se(cells: np.ndarray) -> tuple[float, float]:
    """Mean over cells and its standard error, cells taken as independent."""
    return float(cells.mean()), float(cells.std() / np.sqrt(cells.size))
