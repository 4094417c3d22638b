"""What training gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bmtl import replay, scores, versions
from bmtl._outcomes import new_exposures
from bmtl.arrangement import Arrangement
from bmtl.tasks import Tasks
from bmtl.training.loop import Path, Recipe
from bmtl.training.network import Network


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network. Made by `bmtl.train`.

    Attributes
    ----------
    model : Network
        Trunk and arrangement.
    tasks : Tasks
        What was trained on; they hold the constants of standardisation.
    recipe : Recipe
        Weighting, optimiser, sampling, stopping and epochs.
    sites : dict
        Site name to parameters on the modelled scale. Noises that training held fixed are their optimum on the training
        cells.
    history : DataFrame
        Columns epoch, task, split (``train`` or ``held out``), loss (mean negative log-likelihood a cell, in nats on
        the modelled scale, at the epoch's start), weight (factor on the loss in the epoch's last step) and noise (in
        the user's units).
    stops : DataFrame
        Columns task, epoch: when each task stopped early; missing if it did not.
    seed : int
    device : str
    seconds : float
    versions : dict
        Package to version.
    """

    model: Network
    tasks: Tasks
    recipe: Recipe
    sites: Mapping[str, np.ndarray]
    history: pd.DataFrame
    stops: pd.DataFrame
    seed: int
    device: str
    seconds: float
    versions: Mapping[str, str] = field(default_factory=versions.installed)

    @property
    def arrangement(self) -> Arrangement:
        return self.model.arranged(self.tasks.names)

    @property
    def flat(self) -> dict[str, np.ndarray]:
        """The sites as one posterior draw."""
        return {name: value[None] for name, value in self.sites.items()}

    def predict(
        self, X_new: Any, *, exposure: float | np.ndarray | Mapping[str, Any] = 1.0
    ) -> pd.DataFrame:
        """Expected outcomes at new inputs, on each outcome's own scale.

        Parameters
        ----------
        X_new : DataFrame or array, shape (rows, inputs)
            The inputs the tasks were made with, in the user's units.
        exposure
            As in `bmtl.Fit.predict`.

        Returns
        -------
        DataFrame
            One column a task; for one with labels ``task[label]`` for each, its probability.

        Raises
        ------
        TaskError
            If inputs or exposures are not those that the tasks can have.
        """
        x = self.tasks.standardise(X_new)
        exposures = new_exposures(self.tasks, exposure, len(x))
        means, _ = replay.predict(self.model, self.tasks, self.flat, x, exposures, self.seed)
        columns: dict[str, np.ndarray] = {}
        for name, family, (mean,) in zip(self.tasks.names, self.tasks.families, means, strict=True):
            if family.labels:
                columns |= {f"{name}[{label}]": mean[:, k] for k, label in enumerate(family.labels)}
            else:
                columns[name] = mean
        return pd.DataFrame(columns)

    def score(self, tasks: Tasks) -> pd.DataFrame:
        """How well outcomes that were not trained on are predicted, task by task.

        Parameters
        ----------
        tasks : Tasks
            Some of the tasks, by name, made from other rows in the same way.

        Returns
        -------
        DataFrame
            Columns task, n (cells), lpd (mean over them of the log predictive density at the point, in nats and the
            user's units) and se.

        Raises
        ------
        TaskError
            As `bmtl.Fit.score`.
        """
        return scores.score(self, tasks)

    def __repr__(self) -> str:
        last = self.history[self.history["epoch"] == self.history["epoch"].max()]
        table = last.pivot(index="task", columns="split", values="loss").loc[list(self.tasks.names)]
        table = table.join(last[last["split"] == "train"].set_index("task")[["weight", "noise"]])
        lines = {
            "weighting": type(self.recipe.weighting).__name__, "arrangement": str(self.arrangement),
            "epochs": str(last["epoch"].iloc[0]), "device": self.device, "seed": str(self.seed),
            "seconds": f"{self.seconds:.1f}",
        }
        shown = table.to_string(float_format=lambda v: f"{v:.3g}")
        return "\n".join(["bmtl.Trained", *(f"{key:>12}  {value}" for key, value in lines.items()), shown])


def history(path: Path, names: tuple[str, ...], run: int = 0) -> pd.DataFrame:
    """One run's losses, weights and noises as a table; see `Trained`."""
    epochs, tasks = len(path.train), len(names)
    shared = {
        "epoch": np.repeat(np.arange(epochs), tasks), "task": np.tile(np.array(names, dtype=object), epochs),
    }
    own = {"weight": path.weights[:, run].ravel(), "noise": path.noise[:, run].ravel()}
    parts = [
        pd.DataFrame(shared | {"split": split, "loss": losses[:, run].ravel()} | own)
        for split, losses in (("train", path.train), ("held out", path.held))
        if not np.isnan(losses[:, run]).all()
    ]
    table = pd.concat(parts).sort_values("epoch", kind="stable", ignore_index=True)
    return table[["epoch", "task", "split", "loss", "weight", "noise"]]
