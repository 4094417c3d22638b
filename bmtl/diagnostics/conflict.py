"""Do the tasks pull the shared trunk in opposite directions?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from bmtl.arrangement import Arrangement
from bmtl.diagnostics._training import Study
from bmtl.findings import Finding
from bmtl.tasks import Tasks
from bmtl.training.runs import Runs
from bmtl.trunks import Trunk

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Conflict:
    """Inner products of the tasks' gradients on the trunk along training. Made by `conflict`.

    Attributes
    ----------
    names : tuple of str
    epochs : tuple of int
    seeds : tuple of int
    gram : ndarray, shape (epochs, runs, T, T)
        Inner products of the gradients of the tasks' mean losses over all training cells.
    """

    names: tuple[str, ...]
    epochs: tuple[int, ...]
    seeds: tuple[int, ...]
    gram: np.ndarray

    def table(self) -> pd.DataFrame:
        """One row an epoch, run and pair of tasks.

        Returns
        -------
        DataFrame
            Columns epoch, run, task_a, task_b, cosine (below 0 the tasks conflict) and ratio (length of a's gradient
            over that of b's).
        """
        size = np.sqrt(np.einsum("ertt->ert", self.gram))
        parts = []
        for a, b in combinations(range(len(self.names)), 2):
            with np.errstate(divide="ignore", invalid="ignore"):
                cosine = self.gram[:, :, a, b] / (size[:, :, a] * size[:, :, b])
                ratio = size[:, :, a] / size[:, :, b]
            parts.append(pd.DataFrame({
                "epoch": np.repeat(self.epochs, len(self.seeds)),
                "run": np.tile(np.arange(len(self.seeds)), len(self.epochs)),
                "task_a": self.names[a], "task_b": self.names[b], "cosine": cosine.ravel(), "ratio": ratio.ravel(),
            }))
        return pd.concat(parts, ignore_index=True).sort_values(["epoch", "run"], kind="stable", ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """One row a pair, over runs and epochs but the first, at which nothing has been learned.

        Returns
        -------
        DataFrame
            Columns task_a, task_b, cosine (mean), conflicting (share with a cosine below 0), ratio (geometric mean).
        """
        later = self.table().query("epoch > 0")
        grouped = later.groupby(["task_a", "task_b"], sort=False)
        return grouped.agg(
            cosine=("cosine", "mean"), conflicting=("cosine", lambda own: np.mean(own < 0)),
            ratio=("ratio", lambda own: np.exp(np.mean(np.log(own)))),
        ).reset_index()

    def findings(self) -> list[Finding]:
        """A sentence a pair: how their gradients stand to each other."""
        return [
            Finding("conflict", (str(row.task_a), str(row.task_b)), (
                f"On the shared trunk the gradients of {row.task_a} and {row.task_b} have a mean cosine of "
                f"{row.cosine:+.2f} and oppose each other at {row.conflicting:.0%} of the looks; those of {row.task_a} "
                f"are {row.ratio:.2g} times as long. That bears on training losses, less on unseen cells."
            ))
            for row in self.summary().itertuples()
        ]

    def plot(self) -> Figure:
        """Cosines along training, a line a pair, mean over runs."""
        from bmtl.diagnostics.training_plots import conflict as draw

        return draw(self)

    def __repr__(self) -> str:
        table = self.summary().to_string(index=False, float_format=lambda v: f"{v:.3g}")
        return f"bmtl.Conflict: {len(self.seeds)} runs, {self.epochs[-1]} epochs\n{table}"


def conflict(
    trunk: Trunk,
    tasks: Tasks,
    *,
    every: int = 10,
    runs: int = 5,
    arrangement: Arrangement | None = None,
    device: str = "auto",
    seed: int = 0,
    **options: Any,
) -> Conflict:
    """Cosines and ratios of the lengths of the tasks' gradients on the shared trunk, every few epochs of training.

    Gradients are of the losses as the weighting has them, over all training cells (Yu et al., "Gradient surgery for
    multi-task learning", NeurIPS 2020, on conflict; Chen et al., "GradNorm", ICML 2018, on lengths). Conflict says what
    happens to the training losses; whether sharing predicts better is another question (`trajectory`).

    Parameters
    ----------
    trunk, tasks, arrangement, device, **options
        As in `bmtl.train`.
    every : int
        Epochs from one look to the next, ≥ 1.
    runs : int
        Seeds, ≥ 1: ``seed``, ``seed + 1``, ….

    Raises
    ------
    ValueError, TypeError, TaskError, FitError
        As `bmtl.train`, and if there are fewer than two tasks or the trunk has no parameters.
    """
    tasks.require(2, "conflict")
    if every < 1:
        raise ValueError(f"every must be ≥ 1, got {every}")
    study = Study.of(tasks, runs, 0.0, device, seed, options)
    seen: dict[int, list[np.ndarray]] = {}

    def look(epoch: int, own: Runs) -> None:
        if not own.trunk:
            raise ValueError(f"conflict is between gradients of the trunk; {type(trunk).__name__} has no parameters")
        if epoch % every == 0 or epoch == study.recipe.epochs:
            with torch.enable_grad():
                pulls = own.pulls(own.losses(own.arrays))
            seen.setdefault(epoch, []).append((pulls @ pulls.mT).cpu().numpy())

    study.follow(trunk, arrangement, look)
    return Conflict(tasks.names, tuple(seen), study.seeds, np.stack([np.concatenate(own) for own in seen.values()]))


__all__ = ["Conflict", "conflict"]
