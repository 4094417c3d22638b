"""Arrangements compared by fits: each task's log predictive density of cells that a fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bmtl import data as arrays_of
from bmtl import replay
from bmtl.arrangement import Arrangement
from bmtl.data import Design
from bmtl.fitting.fit import sample
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import NUTS, SVI, Settings, point_trunk
from bmtl.results import Fit
from bmtl.tasks import Tasks


@dataclass(frozen=True, eq=False)
class Trial:
    """One arrangement, tried.

    Attributes
    ----------
    fit : Fit
        On all cells.
    pointwise : list of ndarray
        For each task, log predictive density of each of its cells (nats, user's units) when it is left out.
    evidence : str
        How they were left out.
    """

    fit: Fit
    pointwise: list[np.ndarray]
    evidence: str

    @property
    def elpd(self) -> np.ndarray:
        """Of each task, summed over its cells."""
        return np.array([own.sum() for own in self.pointwise])

    @property
    def se(self) -> np.ndarray:
        return np.array([np.sqrt(len(own) * own.var()) for own in self.pointwise])

    def over(self, other: Trial) -> tuple[np.ndarray, np.ndarray]:
        """Difference in ELPD to another arrangement and its paired standard error, for each task."""
        gaps = [ours - theirs for ours, theirs in zip(self.pointwise, other.pointwise, strict=True)]
        return np.array([gap.sum() for gap in gaps]), np.array([np.sqrt(len(gap) * gap.var()) for gap in gaps])


class Trials:
    """Tries arrangements of one model on the same tasks, all by the same evidence.

    PSIS-LOO where it can be trusted for every arrangement tried; refits by fold (rows left out) where not. A trunk
    that is estimated by a point has seen the cells that importance sampling would leave out, so it is always refitted.

    Parameters
    ----------
    model : Model
        With ``arrangement`` among its fields.
    folds : int
        ≥ 2.
    """

    def __init__(
        self,
        model: Any,
        tasks: Tasks,
        settings: Settings,
        engine: str,
        device: str,
        seed: int,
        folds: int,
        progress: Progress,
    ) -> None:
        self.model, self.tasks, self.settings = model, tasks, settings
        self.engine, self.device, self.seed, self.progress = engine, device, seed, progress
        self.design = Design.of(tasks)
        self.values = arrays_of.arrays(tasks, self.design)
        rng = np.random.default_rng([seed, 1])
        self.fold = rng.permutation(np.arange(tasks.n_rows) % folds)
        self.folds = folds
        self.importance_sampling = not point_trunk(model, settings)
        self._fits: dict[Arrangement, Fit] = {}
        self._trials: dict[Arrangement, Trial] = {}

    def _arranged(self, arrangement: Arrangement) -> Any:
        return replace(self.model, arrangement=arrangement)

    def run(self, arrangements: Sequence[Arrangement]) -> list[Trial]:
        """Trials of these arrangements (each fitted once, whatever is asked later)."""
        if self.importance_sampling:
            for arrangement in arrangements:
                self._loo(arrangement)
        if not self.importance_sampling:
            for arrangement in {*arrangements, *self._trials}:
                trial = self._trials.get(arrangement)
                if trial is None or trial.evidence == LOO:
                    self._refit(arrangement)
        return [self._trials[arrangement] for arrangement in arrangements]

    def _loo(self, arrangement: Arrangement) -> None:
        if arrangement in self._trials:
            return
        (draws,) = self._sample(arrangement, None)
        fit = self._fit(arrangement, draws)
        loo = fit.loo
        self.importance_sampling &= all(own.trusted for own in loo.values())
        self._fits[arrangement] = fit
        self._trials[arrangement] = Trial(fit, [loo[name].pointwise for name in self.tasks.names], LOO)

    def _refit(self, arrangement: Arrangement) -> None:
        masks = [
            {
                name: value & (self.fold != fold)
                for name, value in self.values.items()
                if name.startswith("mask/")
            }
            for fold in range(-1, self.folds)
        ]
        if arrangement in self._fits:
            masks = masks[1:]
        drawn = self._sample(arrangement, masks)
        if arrangement not in self._fits:
            self._fits[arrangement] = self._fit(arrangement, drawn.pop(0))
        pointwise = [np.full(len(rows), np.nan) for rows in self.tasks.rows]
        for fold, draws in enumerate(drawn):
            flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.sites.items()}
            (out,) = np.nonzero(self.fold == fold)
            held = replay.log_predictive(self._arranged(arrangement), self.tasks, flat, out)
            for own, rows, value in zip(pointwise, self.tasks.rows, held, strict=True):
                own[self.fold[rows] == fold] = value
        self._trials[arrangement] = Trial(
            self._fits[arrangement], pointwise, f"{self.folds}-fold refits, rows left out"
        )

    def _fit(self, arrangement: Arrangement, draws: Any) -> Fit:
        return Fit(
            self._arranged(arrangement), self.tasks, self.settings, self.engine, self.device, self.seed, draws
        )

    def _sample(self, arrangement: Arrangement, masks: list[dict[str, np.ndarray]] | None) -> list[Any]:
        return sample(
            self._arranged(arrangement), self.design, self.values, self.settings, self.engine, self.device,
            self.seed, masks, self.progress,
        )


LOO = "PSIS-LOO, cells left out"


def light(settings: Settings) -> Settings:
    """Settings for trials: one restart, and draws enough for predictive densities."""
    if isinstance(settings, NUTS):
        return settings
    return replace(settings, restarts=1, **({"draws": min(settings.draws, 300)} if isinstance(settings, SVI) else {}))
