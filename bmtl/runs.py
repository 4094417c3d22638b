"""Fits that are mixtures: a model proposes runs, which are fitted side by side, and their draws are pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from bmtl.data import Design, arrays
from bmtl.diagnostics.convergence import COLUMNS
from bmtl.fitting.draws import Draws
from bmtl.model import explained
from bmtl.tasks import Tasks


@dataclass(frozen=True, eq=False)
class Runs:
    """What a program is given in each of several runs (`Engine.given`), and how much each counts.

    Attributes
    ----------
    given : dict of str to ndarray
        Runs in the leading dimension.
    weights : ndarray, shape (runs,)
        Positive, of sum 1.
    only : dict of str to str
        Latent sites that are nothing but their prior where a given array of the same shape is zero: pooled draws of
        them are zero there.
    constants : dict of str to ndarray
        What is to be kept with the fit, in the group ``constant_data``.
    checks : DataFrame, optional
        Of how the runs were chosen, with the columns of `Fit.checks`.
    """

    given: Mapping[str, np.ndarray]
    weights: np.ndarray
    only: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    checks: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def arrays(self) -> list[dict[str, np.ndarray]]:
        """The arrays of each run."""
        return [{f"given/{name}": value[run] for name, value in self.given.items()} for run in range(len(self))]

    def likeliest(self) -> Runs:
        """The run of the largest weight alone."""
        best = [int(np.argmax(self.weights))]
        return replace(self, given={name: value[best] for name, value in self.given.items()}, weights=np.ones(1))

    def remembered(self, draws: Draws, run: int) -> Draws:
        """Draws of a run that remember what it was given."""
        own = {
            name: np.broadcast_to(value[run], (*draws.shape, *value.shape[1:])) for name, value in self.given.items()
        }
        return replace(draws, sites={**draws.sites, **own})


def proposed(model: Any, tasks: Tasks, seed: int) -> Runs | None:
    """The runs that a model proposes; None if it is fitted as it is."""
    runs: Runs | None = model.runs(tasks, seed) if hasattr(model, "runs") else None
    return runs


def values_of(model: Any, tasks: Tasks, design: Design) -> dict[str, np.ndarray]:
    """`bmtl.data.arrays`, with masks of the cells that the model explains."""
    values = arrays(tasks, design)
    own = explained(model, tasks)
    if own is not tasks:
        values |= {name: value for name, value in arrays(own, design).items() if name.startswith("mask/")}
    return values


def pooled(runs: Runs, found: Sequence[Any], tables: Sequence[pd.DataFrame], seconds: float) -> Draws:
    """Draws of all runs in proportion to their weights, as many as one run has.

    Parameters
    ----------
    found : sequence of Draws
        Of each run; they remember what it was given.
    tables : sequence of DataFrame
        Convergence checks of each run.
    seconds : float
        That all of them took.
    """
    n = found[0].shape[1]
    counts = _shares(runs.weights, n)
    # Of each run draws evenly apart, and the runs' draws evenly among each other.
    places = [(np.arange(count) + 0.5) / count for count in counts if count]
    order = np.argsort(np.concatenate(places), kind="stable")
    picks = [(own * n).astype(int) for own in places]
    kept = [own for own, count in zip(found, counts, strict=True) if count]

    def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([own[:, pick] for own, pick in zip(parts, picks, strict=True)], axis=1)[:, order]

    sites = {name: joined([own.sites[name] for own in kept]) for name in kept[0].sites}
    sites |= {name: np.where(sites[given] != 0, sites[name], np.float32(0.0)) for name, given in runs.only.items()}
    optimised: dict[str, Any] = {}
    longest: Any = max(found, key=lambda own: np.size(own.trace))
    if longest.elbo is not None:
        levels = np.array([np.max(own.elbo) for own in found])
        optimised |= {"trace": longest.trace[[np.argmax(longest.elbo)]], "elbo": np.atleast_1d(runs.weights @ levels)}
    if kept[0].log_ratio is not None:
        # Of each run relative to its evidence, for which its ELBO stands.
        optimised["log_ratio"] = joined([(own.log_ratio - np.max(own.elbo))[None] for own in kept])[0]
    return Draws(
        sites=sites,
        stats={name: joined([own.stats[name] for own in kept]) for name in kept[0].stats},
        **optimised,
        settled=all(own.settled for own in found),
        seconds=seconds,
        constants=dict(runs.constants),
        checked=worst(tables if runs.checks is None else [*tables, runs.checks]),
    )


def worst(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Of each check the row that fails, or else is nearest to failing, in any of the tables."""
    every = pd.concat(tables, ignore_index=True)
    sign = np.where(every["limit"].str.startswith("≥"), -1.0, 1.0)
    place = every.groupby(["check", "of"], sort=False).ngroup()
    order = every.assign(gap=sign * every["value"], place=place).sort_values(["passed", "gap"], ascending=[True, False])
    return order.drop_duplicates("place").sort_values("place")[COLUMNS].reset_index(drop=True)


def _shares(weights: np.ndarray, n: int) -> np.ndarray:
    """n divided in proportion to weights, by largest remainders."""
    exact = weights * n
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts
