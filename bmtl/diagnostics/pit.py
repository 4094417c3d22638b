"""Calibration of predictions, task by task, without a test set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from bmtl.diagnostics.loo import GOOD_K
from bmtl.diagnostics.uniformity import uniformity
from bmtl.errors import FitError
from bmtl.trees import variables

if TYPE_CHECKING:
    from bmtl.results import Fit

MOST_CELLS = 500
"""Cells a task, evenly spread, that are looked at."""


def loo_pit(fit: Fit) -> pd.DataFrame:
    """Where each outcome lies in its predictive distribution given all others (LOO-PIT).

    Uniform if predictions are calibrated: heaped in the middle if they are too wide, at the ends if too narrow, and to
    one side if biased. By Pareto-smoothed importance sampling (Vehtari, Gelman & Gabry, 2017); draws from a guide are
    taken as they are, for it is the fit's own predictions that are judged. Ties of discrete outcomes are broken at
    random (Czado, Gneiting & Held, "Predictive model assessment for count data", Biometrics, 2009).

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    DataFrame
        Columns task, row, pit and trusted (whether the cell's Pareto k̂ is at most 0.7). Of at most 500 cells a task.
        Tasks whose labels have no order are left out.

    Raises
    ------
    FitError
        For a MAP fit, which has no posterior draws.
    """
    if fit.method == "map":
        raise FitError("a MAP fit has no posterior draws to compute LOO-PIT from: fit with method='svi' or 'nuts'")
    tasks, parts = fit.explained, []
    replicated = fit.data["posterior_predictive"]
    for t, label in enumerate(variables(tasks.names)):
        if tasks.families[t].name == "categorical":
            continue
        some = np.unique(np.linspace(0, len(tasks.y[t]) - 1, min(len(tasks.y[t]), MOST_CELLS)).astype(int))
        new = replicated[label].to_numpy()[..., some]
        # Of large data the tree has fewer replicates than there are draws.
        kept = np.linspace(0, fit.draws.shape[1] - 1, new.shape[1]).astype(int)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # where weights underflow k̂ is infinite
            weights, k = array_stats.psislw(-fit.log_likelihood[t][:, kept][..., some], axis=(0, 1))
        pit = array_stats.loo_pit(
            np.moveaxis(new, -1, 0), tasks.y[t][some], weights, random_state=np.random.default_rng([fit.seed, t])
        )
        # Weights sum to one up to rounding.
        own = {"task": tasks.names[t], "row": tasks.rows[t][some], "pit": np.clip(pit, 0, 1), "trusted": k <= GOOD_K}
        parts.append(pd.DataFrame(own))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["task", "row", "pit", "trusted"])


def calibrated(pits: pd.DataFrame) -> pd.DataFrame:
    """One row a task: is its LOO-PIT uniform?

    Parameters
    ----------
    pits : DataFrame
        Of `loo_pit`.

    Returns
    -------
    DataFrame
        Columns task, n, p (of the test by simultaneous bands of the empirical distribution function; cells taken as
        independent) and trusted (all cells).
    """
    rows = [
        (name, len(own), uniformity(own["pit"].to_numpy()) if len(own) > 1 else np.nan, bool(own["trusted"].all()))
        for name, own in pits.groupby("task", sort=False)
    ]
    return pd.DataFrame(rows, columns=["task", "n", "p", "trusted"])


__all__ = ["calibrated", "loo_pit"]
