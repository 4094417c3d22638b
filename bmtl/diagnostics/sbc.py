"""Simulation-based calibration: is what a fit calls 89% probable right in 89% of cases?

Parameters are drawn from the model's own prior and outcomes from the model at them; each simulated data set is fitted,
and the true value of every quantity is ranked among its posterior draws. Ranks are uniform if program, likelihood,
engine and inference are right (Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian inference algorithms
with simulation-based calibration", 2018). Besides the parameters, linear predictors and the log-likelihood are ranked:
quantities that depend on the data find errors that parameters alone do not show (Modrák et al., "Simulation-based
calibration checking for Bayesian computation: the choice of test quantities shapes sensitivity", Bayesian Analysis,
2023).
"""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl.diagnostics._simulated import Ranks, Simulated
from bmtl.diagnostics.uniformity import holm, uniformity
from bmtl.engine import ENGINES
from bmtl.errors import FitError
from bmtl.fitting import numpyro_many, numpyro_svi
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import NUTS, SVI, Settings, resolve
from bmtl.fitting.workers import spread
from bmtl.model import Model
from bmtl.tasks import Tasks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALPHA = 0.01
"""Probability that a right posterior is called wrong, over all of its quantities."""

TOGETHER = 50
"""Simulations that are fitted side by side: more of them wait longer for the slowest."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "nuts": {"chains": 1, "warmup": 300, "draws": 300, "max_tree_depth": 7},
    "svi": {"trunk": "guide", "restarts": 1, "draws": 300},
}
"""Options that serve many short fits: all chains wait for the one with the deepest tree."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What simulation-based calibration found.

    Attributes
    ----------
    names : tuple of str, length Q
        Quantities: a parameter ``site[index]``, a linear predictor ``eta[task, row]``, or ``log_likelihood``.
    ranks : ndarray, shape (simulations, Q)
        Normalised rank of the true value among the posterior draws, ties broken at random: uniform on (0, 1) under a
        right posterior.
    ess : ndarray, shape (simulations, Q)
        Effective sample size of the draws; NUTS draws from the fit's own starting point were thinned by it.
    diverging : ndarray of int, shape (simulations,)
        Divergent iterations of each NUTS fit. Such simulations are kept: whether a fit diverges depends on its data,
        so that the ranks of the others alone would not be uniform.
    dropped : int
        Simulations left out because float32 does not hold them: prior draws, outcomes or an ELBO that are not finite.
    method, engine : str
    seconds : float
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    ess: np.ndarray
    diverging: np.ndarray
    dropped: int
    method: str
    engine: str
    seconds: float

    @property
    def simulations(self) -> int:
        """Simulations that were ranked."""
        return len(self.ranks)

    @cached_property
    def p_values(self) -> np.ndarray:
        """p-value of uniformity of each quantity's ranks, see `bmtl.diagnostics.uniformity`; shape (Q,)."""
        return np.array([uniformity(own) for own in self.ranks.T])

    @property
    def calibrated(self) -> bool:
        """Whether no quantity's ranks depart from uniformity, family-wise at 1% (Holm)."""
        return bool(holm(self.p_values).min() > ALPHA)

    def coverage(self, prob: float) -> np.ndarray:
        """Share of simulations whose true value lies in the central interval of that probability; shape (Q,)."""
        return np.mean(np.abs(self.ranks - 0.5) <= prob / 2, axis=0)

    def table(self) -> pd.DataFrame:
        """One row a quantity.

        Returns
        -------
        DataFrame
            Columns quantity, p_value, p_holm, mean_rank (above 0.5: draws lie too low), coverage_50, coverage_89,
            min_ess (over the simulations) and median_ess.
        """
        return pd.DataFrame({
            "quantity": self.names, "p_value": self.p_values, "p_holm": holm(self.p_values),
            "mean_rank": self.ranks.mean(axis=0), "coverage_50": self.coverage(0.5),
            "coverage_89": self.coverage(0.89), "min_ess": self.ess.min(axis=0),
            "median_ess": np.median(self.ess, axis=0),
        })

    def plot(self) -> Figure:
        """Differences of the ranks' distribution functions to uniform, see `bmtl.diagnostics.plots.ecdf`."""
        from bmtl.diagnostics.plots import ecdf

        return ecdf(self)

    def __repr__(self) -> str:
        worst = int(np.argmin(self.p_values))
        verdict = "calibrated" if self.calibrated else "NOT calibrated"
        lines = {
            "method": f"{self.method} on {self.engine}",
            "simulations": f"{self.simulations}, {self.dropped} dropped, {int(np.sum(self.diverging > 0))} diverged",
            "verdict": f"{verdict}: smallest p {self.p_values[worst]:.2g} ({self.names[worst]}), "
            f"{holm(self.p_values).min():.2g} over {len(self.names)} quantities",
            "coverage": f"50%: {self.coverage(0.5).mean():.2f}, 89%: {self.coverage(0.89).mean():.2f} (mean)",
            "smallest ESS": f"{self.ess.min():.0f}",
            "seconds": f"{self.seconds:.1f}",
        }
        return "\n".join(["bmtl.Calibration", *(f"{key:>13}  {value}" for key, value in lines.items())])


def simulation_based_calibration(
    model: Model,
    tasks: Tasks,
    method: str | Settings = "nuts",
    simulations: int = 200,
    seed: int = 0,
    *,
    engine: str = "numpyro",
    inference: Model | None = None,
    progress: bool | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> Calibration:
    """Fit data drawn from the model's prior, and rank the true values among the posterior draws.

    Parameters
    ----------
    model : Model
        Parameters and outcomes are drawn from it.
    tasks : Tasks
        Inputs, exposures, which cells are observed, and the scales of the priors; all are kept fixed, so that the
        prior knows nothing of the simulated outcomes.
    method : {"nuts", "svi"} or NUTS or SVI
        NUTS fits all data sets as one program: a chain each from where a fit starts, on which everything without
        symmetries is ranked, and one from the true values for the other sites (`bmtl.fitting.numpyro_many`). SVI is
        ranked on what has no symmetries only.
    simulations : int
        ≥ 2.
    engine : {"numpyro", "pyro"}
        On Pyro only SVI, one simulation after another.
    inference : Model, optional
        What is fitted, if not ``model``: a posterior that is known to be wrong, to see that it is found out. It must
        have the same latent sites.
    executor : concurrent.futures.Executor, optional
        Whose workers fit, `TOGETHER` simulations at a time. The result is the same with and without.
    **options
        Of the method. Defaults differ from those of `bmtl.fit` where many short fits do: `DEFAULTS`.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError, TypeError
        If the method, the engine or an option is not one there is, or NUTS has more than one chain.
    FitError
        If a log-density is not finite where NUTS starts, or the ELBO of no simulation is.
    """
    start = time.perf_counter()
    name, settings = resolve(method, DEFAULTS.get(method, {}) | options if isinstance(method, str) else options)
    if simulations < 2:
        raise ValueError(f"simulations must be ≥ 2, got {simulations}")
    sampled = isinstance(settings, NUTS) and settings.chains == 1 and not settings.marginal and engine == "numpyro"
    if not (sampled or isinstance(settings, SVI)) or engine not in ENGINES:
        raise ValueError(
            "simulations are fitted by SVI on pyro or numpyro, or by NUTS on numpyro with one chain each and all sites "
            f"sampled; got {settings} on {engine}"
        )
    data = Simulated(model, tasks, simulations, seed)
    shown = Progress(progress if executor is None else False)
    if isinstance(settings, NUTS):
        parts, diverging = _by_nuts(data, inference or model, settings, seed, shown, executor)
    else:
        parts = [_by_svi(data, inference or model, settings, engine, seed, shown, executor)]
        diverging = np.zeros(len(data.truth), dtype=int)
    return Calibration(
        names=tuple(name for part in parts for name in part.names),
        ranks=np.concatenate([part.ranks for part in parts], axis=1),
        ess=np.concatenate([part.ess for part in parts], axis=1),
        diverging=diverging,
        dropped=data.dropped,
        method=name,
        engine=engine,
        seconds=time.perf_counter() - start,
    )


def _parts(data: Simulated, seed: int) -> list[tuple[np.ndarray, int]]:
    """Which simulations are fitted side by side, as near to `TOGETHER` as they divide, and a seed for each part."""
    count = len(data.truth)
    parts = np.array_split(np.arange(count), max(-(-count // TOGETHER), 1))
    return [(own, seed + 2 * number) for number, own in enumerate(parts)]


def _by_nuts(
    data: Simulated, inference: Model, settings: NUTS, seed: int, progress: Progress, executor: Executor | None
) -> tuple[list[Ranks], np.ndarray]:
    fixed = {name: np.asarray(value) for name, value in data.fixed.items()}
    calls = [
        (inference, data.design, fixed, data.outcomes(part), data.truth[part], settings, own, progress)
        for part, own in _parts(data, seed)
    ]
    found = spread(numpyro_many.run, calls, executor)
    fitted, true = (np.concatenate([getattr(own, name) for own in found]) for name in ("fitted", "true"))
    return [
        data.ranks(data.constrain(fitted), identified=True, chains=True, seed=seed),
        data.ranks(data.constrain(true), identified=False, chains=True, seed=seed + 1),
    ], np.concatenate([own.diverging for own in found])


def _by_svi(
    data: Simulated, inference: Model, settings: Any, engine: str, seed: int, progress: Progress,
    executor: Executor | None,
) -> Ranks:
    # A point or a guide for the trunk cannot be chosen by held-out rows, which would be others in each simulation.
    settings = replace(settings, trunk="guide") if settings.trunk == "auto" else settings
    # Copies, because torch refuses arrays that it may not write.
    fixed, calls = {name: np.array(value) for name, value in data.fixed.items()}, []
    for part, own_seed in _parts(data, seed):
        own = data.outcomes(part)
        each = [{name: np.array(value[i]) for name, value in own.items()} for i in range(len(part))]
        calls.append((engine, inference, data.design, fixed | each[0], settings, own_seed, each, progress))
    found = [draws for part in spread(_fitted, calls, executor) for draws in part]
    data.keep([not draws.failed for draws in found])
    found = [draws for draws in found if not draws.failed]
    if not found:
        raise FitError(f"the ELBO of {type(inference).__name__} is finite for no simulation")
    sites = {name: np.concatenate([draws.sites[name] for draws in found]) for name in found[0].sites}
    return data.ranks(sites, identified=True, seed=seed)


def _fitted(engine: str, *arguments: Any) -> list[Draws]:
    """SVI on an engine."""
    if engine == "pyro":
        from bmtl.fitting import pyro_svi

        return pyro_svi.run(*arguments)
    return numpyro_svi.run(*arguments)
