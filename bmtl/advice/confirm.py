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
from bmtl.diagnostics.convergence import MAX_K, guide_k
from bmtl.fitting.draws import Draws
from bmtl.fitting.jobs import Job, Work
from bmtl.fitting.settings import NUTS, SVI, Settings, point_trunk
from bmtl.folds import Folds
from bmtl.noise import Common
from bmtl.relations import Independent
from bmtl.results import Fit
from bmtl.tasks import Tasks


@dataclass(frozen=True, eq=False)
class Trial:
    """One arrangement, tried.

    Attributes
    ----------
    arrangement : Arrangement
    tasks : Tasks
    rows : list of ndarray
        For each task the rows of its cells that were left out at some time.
    pointwise : list of ndarray
        Log predictive density of each of them (nats, user's units) when it is left out.
    evidence : str
        How they were left out.
    """

    arrangement: Arrangement
    tasks: Tasks
    rows: list[np.ndarray]
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

    PSIS-LOO where it can be trusted for every arrangement tried; refits by fold (rows left out) where not. Refits of
    rows at random start at the posterior of all cells, as approximate cross-validation does (Giordano et al., "A Swiss
    Army infinitesimal jackknife", AISTATS 2019), and are trained from there until they have settled. A trunk
    that is estimated by a point has seen the cells that are left out, so it is always refitted from the start.

    Parameters
    ----------
    model : Model
        With ``arrangement`` among its fields.
    folds : Folds
        What refits leave out. Single cells are left out, by importance sampling, only where rows are.
    work : Work
        Who fits.
    """

    def __init__(
        self,
        model: Any,
        tasks: Tasks,
        settings: Settings,
        engine: str,
        device: str,
        seed: int,
        folds: Folds,
        work: Work,
    ) -> None:
        self.model, self.tasks, self.settings = model, tasks, settings
        self.engine, self.device, self.seed, self.work = engine, device, seed, work
        self.design = Design.of(tasks)
        self.values = arrays_of.arrays(tasks, self.design)
        self.folds = folds
        self.parts = folds.split(tasks, seed)
        self.importance_sampling = folds.kind == "row" and not point_trunk(model, settings)
        # A point remembers what it was trained on; a posterior over the trunk is soon that of the training cells.
        seen = not isinstance(settings, SVI) or point_trunk(model, settings)
        self.warm = folds.kind == "row" and not seen
        self._fits: dict[Arrangement, Fit] = {}
        self._trials: dict[Arrangement, Trial] = {}

    def run(self, arrangements: Sequence[Arrangement]) -> list[Trial]:
        """Trials of these arrangements (each fitted once, whatever is asked later)."""
        if self.importance_sampling and self.work.executor is not None:
            # Some may turn out not to be needed, but workers wait.
            self._fit([own for own in arrangements if own not in self._trials])
        for arrangement in arrangements:
            if self.importance_sampling and arrangement not in self._trials:
                self._leave_cells_out(arrangement)
        if not self.importance_sampling:
            every = dict.fromkeys([*arrangements, *self._trials])
            due = [own for own in every if own not in self._trials or self._trials[own].evidence == LOO]
            self._leave_rows_out(due)
        found = [self._trials[arrangement] for arrangement in arrangements]
        apart = isinstance(getattr(self.model, "relation", None), Independent) and not isinstance(
            getattr(self.model, "noise", None), Common
        )
        return agreed(found, list(self._trials.values())) if apart else found

    def of(self, model: Any) -> Trials:
        """The same for another model, by refits if these came to need them."""
        other = Trials(model, self.tasks, self.settings, self.engine, self.device, self.seed, self.folds, self.work)
        other.importance_sampling &= self.importance_sampling
        return other

    def fit(self, arrangement: Arrangement) -> Fit:
        """The fit of all cells under an arrangement."""
        self._fit([arrangement])
        return self._fits[arrangement]

    def _fit(self, arrangements: Sequence[Arrangement]) -> None:
        due = [own for own in dict.fromkeys(arrangements) if own not in self._fits]
        jobs = [self._job(own, self.settings) for own in due]
        for job, own, (draws,) in zip(jobs, due, self.work.sample(jobs), strict=True):
            self._fits[own] = Fit(job.model, self.tasks, self.settings, self.engine, self.device, self.seed, draws)

    def _leave_cells_out(self, arrangement: Arrangement) -> None:
        fit = self.fit(arrangement)
        if isinstance(self.settings, SVI) and not guide_k(fit.draws) <= MAX_K:
            self.importance_sampling = False
            return
        loo = fit.loo
        self.importance_sampling = all(own.trusted for own in loo.values())
        pointwise = [loo[name].pointwise for name in self.tasks.names]
        self._trials[arrangement] = Trial(arrangement, self.tasks, list(self.tasks.rows), pointwise, LOO)

    def _leave_rows_out(self, arrangements: Sequence[Arrangement]) -> None:
        masks = [
            {name: value & train for name, value in self.values.items() if name.startswith("mask/")}
            for train, _ in self.parts
        ]
        if self.warm:
            self._fit(arrangements)
        # Nearby, and in the same optimum of several: what differs between two arrangements is then not luck.
        jobs = [
            self._job(own, light(self.settings), masks, self._fits[own].draws.guide if self.warm else None)
            for own in arrangements
        ]
        for arrangement, job, fitted in zip(arrangements, jobs, self.work.sample(jobs), strict=True):
            self._trials[arrangement] = self._held_out(arrangement, job.model, fitted)

    def _held_out(self, arrangement: Arrangement, model: Any, fitted: Sequence[Draws]) -> Trial:
        """The trial of an arrangement, from the refits of all folds."""
        rows: list[list[np.ndarray]] = [[] for _ in self.tasks.names]
        pointwise: list[list[np.ndarray]] = [[] for _ in self.tasks.names]
        for (_, out), draws in zip(self.parts, fitted, strict=True):
            flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.sites.items()}
            held = replay.log_predictive(model, self.tasks, flat, np.flatnonzero(out))
            for t, own in enumerate(self.tasks.rows):
                rows[t].append(own[out[own]])
                pointwise[t].append(held[t])
        evidence = f"{len(self.parts)}-fold refits, {self.folds.in_words}"
        return Trial(
            arrangement, self.tasks, [np.concatenate(own) for own in rows],
            [np.concatenate(own) for own in pointwise], evidence,
        )

    def _job(
        self, arrangement: Arrangement, settings: Settings, masks: list[dict[str, np.ndarray]] | None = None,
        begin: Any = None,
    ) -> Job:
        model = replace(self.model, arrangement=arrangement)
        return Job(
            model, self.design, self.values, settings, self.engine, self.device, self.seed, masks, begin
        )


def agreed(trials: Sequence[Trial], known: Sequence[Trial]) -> list[Trial]:
    """Trials that agree on the trunks they have in common, where trunks have nothing to do with each other.

    The same tasks on a trunk of their own are the same model in every arrangement; what differs is luck of the
    optimiser. All get the densities of the trial, of all that are known, in which these tasks are predicted best.
    """
    best: dict[Any, tuple[float, Trial]] = {}
    for trial in known:
        for key, own in _trunks(trial):
            total = float(sum(trial.pointwise[t].sum() for t in own))
            if key not in best or total > best[key][0]:
                best[key] = total, trial
    out = []
    for trial in trials:
        pointwise = list(trial.pointwise)
        for key, own in _trunks(trial):
            for t in own:
                pointwise[t] = best[key][1].pointwise[t]
        out.append(replace(trial, pointwise=pointwise))
    return out


def _trunks(trial: Trial) -> list[tuple[Any, list[int]]]:
    """Each trunk as what is the same in other arrangements, and the positions of its tasks."""
    found = []
    for trunk in trial.arrangement.trunks:
        names = [own for head in trunk for own in head]
        key = trunk, trial.arrangement.flipped & set(names), trial.evidence
        found.append((key, [trial.tasks.index(own) for own in names]))
    return found


LOO = "PSIS-LOO, cells left out"


def light(settings: Settings) -> Settings:
    """Settings for refits: one restart, and draws enough for predictive densities."""
    if isinstance(settings, SVI):
        return replace(settings, restarts=1, draws=min(settings.draws, 300))
    return settings if isinstance(settings, NUTS) else replace(settings, restarts=1)
