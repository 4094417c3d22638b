"""Joint draws of graphs and coefficients, and how far a change of one thing moves the others in each draw.

Given its graph, a draw is a model with one equation a task, in the user's units:
    η_t = f_t(x) + Σ_u b_ut v_u,    y_t ~ family_t(η_t, σ_t),
with v_u the parent's outcome, the logarithm of a lognormal one. In closed form f_t(x) = c_t + Σ_p a_pt x_p, with
columns of inputs x_p as in `bmtl.causal.inputs`; of a fitted model it is what `bmtl.causal.fitted` reads off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmtl.causal.columns import Columns, is_located
from bmtl.causal.partition import layers
from bmtl.causal.scores import LocalScores
from bmtl.causal.subsets import Array
from bmtl.families import Family

Flags = NDArray[np.bool_]
Index = NDArray[np.int64]

N_ROWS = 500
"""Rows over which rates that differ between them are averaged."""

STEP = 1e-4
"""Of the linear predictor, for the derivative of a mean."""


@dataclass(frozen=True, eq=False)
class Draws(ABC):
    """S joint draws.

    Attributes
    ----------
    columns : Columns
    graphs : (S, T, T) bool array
        Row → column.
    slopes : (S, T, T) array
        Of the column's linear predictor by the row's outcome as it enters; zero without an edge.
    noises : tuple of T arrays (S, …)
    sample : int array
        Positions of the rows over which rates are averaged.
    """

    columns: Columns
    graphs: Flags
    slopes: Array
    noises: tuple[Array, ...]
    sample: Index

    def __len__(self) -> int:
        return len(self.graphs)

    @abstractmethod
    def at(self, Z: Array) -> Array:
        """What `function` needs to know of standardised inputs Z (n, d)."""

    @property
    @abstractmethod
    def sampled(self) -> Array:
        """The same of the sample of rows."""

    @abstractmethod
    def function(self, at: Index, t: int, where: Array) -> Array:
        """f_t in some draws, (len(at), n)."""

    @abstractmethod
    def lines(self, j: int) -> Array:
        """Slopes by a standardised input of the straight lines through functions, (S, T)."""

    @cached_property
    def distinct(self) -> tuple[tuple[Flags, Index, list[int]], ...]:
        """Each graph once: the graph, the draws that have it, and an order of the tasks in which causes come first."""
        graphs, which = np.unique(self.graphs, axis=0, return_inverse=True)
        which = which.reshape(-1)
        return tuple(
            (graph, np.flatnonzero(which == i), np.argsort(layers(graph), kind="stable").tolist())
            for i, graph in enumerate(graphs)
        )

    @cached_property
    def standardised(self) -> Array:
        """What slopes (S, T, T) are multiplied by for one standard deviation, in units of `Columns.unit`, (T, T)."""
        found: Array = self.columns.scale[:, None] / self.columns.unit
        return found

    def predictor(self, at: Index, t: int, where: Array, values: Sequence[Array | None]) -> Array:
        """η_t in some draws, (len(at), n), at inputs (as of `at`) and values of parents, (n,) or (len(at), n)."""
        eta = self.function(at, t, where)
        for u in np.flatnonzero(self.graphs[at[0], :, t]).tolist():
            eta = eta + self.slopes[at, u, t][:, None] * values[u]
        return eta

    def noise(self, at: Index, t: int) -> Array:
        """σ_t in some draws, with a dimension for rows, (len(at), 1, …)."""
        return self.noises[t][at][:, None]

    @cached_property
    def rates(self) -> tuple[tuple[Array | float, Array | float], ...]:
        """For each task the derivative by η of its outcome as it enters effects and of its mean outcome, on some rows.

        1 where the outcome is η plus noise, else (S, rows) at the parents observed.
        """
        own, rows = self.columns, self.sample
        values = [(own.centre + own.scale * own.z[rows])[:, u] for u in range(own.n_tasks)]
        found: list[tuple[Array | float, Array | float]] = []
        for t, family in enumerate(own.families):
            located = is_located(family, own.y[:1, t])
            if located and family.link == "identity":
                found.append((1.0, 1.0))
                continue
            rate = np.empty((len(self), len(rows)))
            for _, at, _ in self.distinct:
                eta = self.predictor(at, t, self.sampled, values)
                high, low = (
                    expected(family, eta + step, self.noise(at, t), own.exposure[rows, t]) for step in (STEP, -STEP)
                )
                rate[at] = (high - low) / (2 * STEP)
            found.append((1.0 if located else rate, rate))
        return tuple(found)

    def moved(self, start: Array, source: int | None = None, *, direct: bool = False) -> tuple[Array, Array]:
        """How far linear predictors and mean outcomes move, on average over rows, (S, T) each.

        Tasks between move as their means do at each row: exact where outcomes are linear predictors plus noise.

        Parameters
        ----------
        start : (S, T) array
            How far linear predictors are moved from outside.
        source : int, optional
            A task whose outcome is set, one unit higher, and is not moved by others.
        direct : bool
            Without what tasks pass on.
        """
        eta, mean = np.zeros((2, *start.shape))
        for graph, at, order in self.distinct:
            passed: list[Array] = [np.zeros((len(at), 1))] * len(order)
            for t in order:
                if t == source:
                    passed[t], eta[at, t], mean[at, t] = np.ones((len(at), 1)), 1.0, 1.0
                    continue
                move = start[at, t][:, None]
                for u in [] if direct else np.flatnonzero(graph[:, t]).tolist():
                    move = move + self.slopes[at, u, t][:, None] * passed[u]
                entering, outcome = (rate if isinstance(rate, float) else rate[at] for rate in self.rates[t])
                passed[t] = move * entering
                eta[at, t], mean[at, t] = move.mean(axis=1), (move * outcome).mean(axis=1)
        return eta, mean

    def along(self, at: Index, path: Sequence[int]) -> Array:
        """Product of slopes along a path in some draws, with rates of the tasks between, on average over rows."""
        product: Array = np.ones((len(at), 1))
        for u, t in pairwise(path):
            rate = self.rates[u][0] if u != path[0] else 1.0
            product = product * self.slopes[at, u, t][:, None] * (rate if isinstance(rate, float) else rate[at])
        found: Array = product.mean(axis=1)
        return found


@dataclass(frozen=True, eq=False)
class ClosedDraws(Draws):
    """S joint draws whose functions are sums of columns of inputs.

    Attributes
    ----------
    intercepts : (S, T) array
    inputs : (S, P, T) array
        Of columns of inputs; zero where their group does not act.
    """

    intercepts: Array
    inputs: Array

    def at(self, Z: Array) -> Array:
        return np.hstack([np.empty((len(Z), 0)), *(group.at(Z) for group in self.columns.groups)])

    @property
    def sampled(self) -> Array:
        return self.columns.design[self.sample]

    def function(self, at: Index, t: int, where: Array) -> Array:
        found: Array = self.intercepts[at, t][:, None] + self.inputs[at, :, t] @ where.T
        return found

    def lines(self, j: int) -> Array:
        slot = [line for group in self.columns.groups for line in group.lines].index(j)
        found: Array = self.inputs[:, slot]
        return found


def expected(family: Family, eta: Array, noise: Array, exposure: Array) -> Array:
    """Mean outcome; of labels in order, the mean of their codes."""
    mean: Array = family.mean(np, eta, noise, exposure)
    return mean @ np.arange(float(len(family.labels))) if family.labels else mean


def drawn(scores: LocalScores, graphs: Flags, repeats: int, seed: int) -> ClosedDraws:
    """Coefficients given each of some graphs (G, T, T), ``repeats`` times."""
    own, rng = scores.columns, np.random.default_rng(seed)
    graphs = np.repeat(graphs, repeats, axis=0)
    n, T = len(graphs), own.n_tasks
    slopes, intercepts = np.zeros(graphs.shape), np.zeros((n, T))
    inputs = np.zeros((n, own.design.shape[1], T))
    noises = []
    for t, unit, found, noise in _coefficients(scores, graphs, rng):
        slopes[:, :, t] = found[:, 1 : T + 1] * unit / own.scale
        inputs[:, :, t] = found[:, T + 1 :] * unit
        located = is_located(own.families[t], own.y[:1, t])
        intercepts[:, t] = own.centre[t] * located + found[:, 0] * unit - slopes[:, :, t] @ own.centre
        noises.append(noise * unit if located else noise)
    return ClosedDraws(own, graphs, slopes, tuple(noises), sampled(own, rng), intercepts, inputs)


def sampled(columns: Columns, rng: np.random.Generator) -> Index:
    """Positions of rows over which rates are averaged."""
    return np.sort(rng.permutation(len(columns.rows))[:N_ROWS])


def as_gaussian(draws: ClosedDraws, scores: LocalScores, seed: int) -> tuple[Array, Array]:
    """Slopes on standardised outcomes (S, T, T) and on inputs (S, P, T), of tasks taken for Gaussian ones.

    Those of tasks whose outcome is a linear predictor plus noise are the draws' own.
    """
    own, rng = draws.columns, np.random.default_rng(seed)
    slopes, inputs = draws.slopes * draws.standardised, draws.inputs / own.unit
    curved = [t for t, family in enumerate(own.families) if not is_located(family, own.y[:1, t])]
    for t, _, found, _ in _coefficients(scores, draws.graphs, rng, curved, gaussian=True):
        slopes[:, :, t], inputs[:, :, t] = found[:, 1 : own.n_tasks + 1], found[:, own.n_tasks + 1 :]
    return slopes, inputs


def _coefficients(
    scores: LocalScores, graphs: Flags, rng: np.random.Generator, which: Sequence[int] | None = None, **options: Any
) -> Iterator[tuple[int, float, Array, Array]]:
    """For each task its unit, its intercept, slopes on tasks and on inputs (S, 1 + T + P), and its noises."""
    own = scores.columns
    for t in range(own.n_tasks) if which is None else which:
        found = np.zeros((len(graphs), 1 + own.n_tasks + own.design.shape[1]))
        noises, order = [], []
        parents, member = np.unique(graphs[:, :, t], axis=0, return_inverse=True)
        for i, flags in enumerate(parents):
            at, cause = np.flatnonzero(member.reshape(-1) == i), np.flatnonzero(flags)
            local = scores.draw(t, cause.tolist(), len(at), rng, **options)
            found[at, 0] = local.intercepts
            found[np.ix_(at, 1 + cause)] = local.parents
            found[at, 1 + own.n_tasks :] = local.inputs
            noises.append(local.noises)
            order.append(at)
        yield t, float(own.unit[t]), found, np.concatenate(noises)[np.argsort(np.concatenate(order))]
