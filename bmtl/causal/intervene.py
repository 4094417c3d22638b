"""Outcomes where tasks are set from outside: every graph drawn is followed from causes to effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bmtl.causal.draws import Draws, expected
from bmtl.causal.subsets import Array

LOW, HIGH = 0.055, 0.945
"""Ends of an 89% interval."""


def summary(values: Array) -> tuple[float, float, float]:
    """Mean and 89% interval; NaN of nothing."""
    if not values.size:
        return np.nan, np.nan, np.nan
    low, high = np.quantile(values, [LOW, HIGH])
    return float(values.mean()), float(low), float(high)


@dataclass(frozen=True, eq=False)
class Intervention:
    """Draws of outcomes where some tasks are set.

    Attributes
    ----------
    values : mapping of str to float
        The tasks that are set, and to what (the codes of labels).
    outcomes : dict of str to (draws, rows) array
        New outcomes, in the user's units; draw by draw of one graph and its coefficients.
    means : dict of str to (draws, rows) array
        Expected outcomes given the outcomes of the task's causes, of ordinal tasks of their codes. Less noisy than
        `outcomes` where only averages matter.
    """

    values: Mapping[str, float]
    outcomes: dict[str, Array]
    means: dict[str, Array]

    @property
    def table(self) -> pd.DataFrame:
        """Task by task: whether it is set, its mean over the rows with an 89% interval, and one of new outcomes."""
        rows = []
        for name, own in self.means.items():
            mean, low, high = summary(own.mean(axis=1))
            rows.append((name, name in self.values, mean, low, high, *summary(self.outcomes[name])[1:]))
        columns = ["task", "set", "mean", "mean_low", "mean_high", "outcome_low", "outcome_high"]
        return pd.DataFrame(rows, columns=columns)


def intervene(
    draws: Draws, values: Mapping[int, float], where: Array, exposure: Array, rng: np.random.Generator
) -> tuple[list[Array], list[Array]]:
    """Outcomes and their means of each task, (S, n).

    Parameters
    ----------
    values : mapping of int to float
        Tasks that are set.
    where : array
        Inputs, as of `Draws.at`.
    exposure : (n, T) array
    """
    families, n = draws.columns.families, len(exposure)
    outcomes, means = (list(np.empty((len(families), len(draws), n))) for _ in range(2))
    for _, at, order in draws.distinct:
        entered: list[Array | None] = [None] * len(order)
        for t in order:
            family = families[t]
            if t in values:
                y = mean = np.full((len(at), n), values[t])
            else:
                eta, noise = draws.predictor(at, t, where, entered), draws.noise(at, t)
                y, mean = family.draw(rng, eta, noise, exposure[:, t]), expected(family, eta, noise, exposure[:, t])
            outcomes[t][at], means[t][at], entered[t] = y, mean, family.entering(np, y)
    return outcomes, means
