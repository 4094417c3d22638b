"""Sets of tasks drawn with known relations.

Functions are those of `benchmarks.drawn_pairs`: two-layer tanh networks or Matérn-5/2 processes on the active inputs,
at unit variance. Inputs are standard normal; all tasks of a problem are observed on the same rows unless said.

* *twins*: one function. *rescaled twins*: task b in other units, of either sign.
* *siblings*: correlation of the functions ±U(.3, .9), same active inputs.
* *strangers*: independent functions of different sets of inputs.
* *representation*: unrelated functions of the same 2 of 10 inputs.
* *noisy neighbour*: siblings of |ρ| in (.6, .9); the noise of b is 10 to 100 times that of a, .02 to .05. (With .05 to
  .1 many b have ten times more noise than signal: 300 rows show nothing of them, and there is no verdict to be right.)
* *imbalanced*: siblings of |ρ| in (.6, .9); a has 20 rows, b 2,000.
* *mixed families*: Gaussian, yes/no and count outcomes of three siblings, pairwise correlation U(.5, .8).
* *two clusters*: six tasks, two times three siblings, pairwise correlation U(.5, .8); clusters of different inputs.
* *chain*: f_t = (g_t + g_{t+1}) / √2 for four tasks: neighbours have correlation .5, others none.
* *narrow trunk*, *wide trunk*: two unrelated networks of 2 units on the same 2 of 10 inputs, fitted on a trunk of 2
  units, which cannot hold both, or of 16, which can. Functions do not say what is right here: it is *decouple* where
  sharing predicts the held-out rows worse by .01 nats an observation, *weight* where better, and either in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from benchmarks.drawn_pairs import N_MEASURE, matern_process, orthogonal, standard, tanh_network
from bmtl.tasks import Tasks

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
Truth = dict[frozenset[str], str]

ROWS, HELD = 300, 2000
CLUSTER = 3
WIDE, NARROW = 16, 2


@dataclass(frozen=True)
class Problem:
    """Tasks to learn from, others of the same functions to be judged on, and what is true of each pair.

    Attributes
    ----------
    width : int
        Units of the trunk.
    by_prediction : bool
        Whether it is held-out rows that say what is right, not the functions.
    """

    kind: str
    seed: int
    tasks: Tasks
    held: Tasks
    truth: Truth
    width: int = WIDE
    by_prediction: bool = False


def names(n: int) -> list[str]:
    """Of tasks."""
    return [f"y{t}" for t in range(n)]


def all_pairs(n: int, verdict: str) -> Truth:
    """The same verdict for every pair."""
    return {frozenset(pair): verdict for pair in combinations(names(n), 2)}


def _maker(rng: np.random.Generator, active: NDArray[np.intp]) -> Callable[[], Function]:
    return (tanh_network if rng.random() < 0.5 else matern_process)(rng, active)


def _related(first: Function, rest: Function, rho: float) -> Function:
    return lambda X: rho * first(X) + np.sqrt(1.0 - rho**2) * rest(X)


def _signed(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high) * rng.choice([-1, 1]))


def _siblings(make: Callable[[], Function], measure: Array, rho: float) -> list[Function]:
    f = standard(make(), measure)
    return [f, _related(f, orthogonal(standard(make(), measure), f, measure), rho)]


def _exchangeable(make: Callable[[], Function], measure: Array, n: int, rho: float) -> list[Function]:
    """n functions, every two of which have correlation ρ."""
    parts = [standard(make(), measure)]
    for _ in range(n):
        own = standard(make(), measure)
        for other in parts:
            own = orthogonal(own, other, measure)
        parts.append(own)
    return [_related(parts[0], own, rho**0.5) for own in parts[1:]]


def cluster(rng: np.random.Generator, active: NDArray[np.intp], measure: Array, n: int) -> list[Function]:
    """n siblings on the active inputs."""
    return _exchangeable(_maker(rng, active), measure, n, rng.uniform(0.5, 0.8))


def _different(rng: np.random.Generator, d: int, size: int, n: int) -> list[NDArray[np.intp]]:
    """n different sets of inputs."""
    found: dict[frozenset[int], NDArray[np.intp]] = {}
    while len(found) < n:
        own = rng.permutation(d)[:size]
        found.setdefault(frozenset(own.tolist()), own)
    return list(found.values())


def _network(rng: np.random.Generator, active: NDArray[np.intp], units: int) -> Function:
    inner = rng.normal(size=(len(active), units)) * 1.5
    bias, outer = rng.normal(size=units), rng.choice([-1, 1], units) * rng.uniform(0.7, 1.3, units)
    return lambda X: np.tanh(X[:, active] @ inner + bias) @ outer


def _functions(kind: str, rng: np.random.Generator, d: int, measure: Array) -> tuple[list[Function], Truth]:
    size = 2 if kind in ("representation", "chain") or kind.endswith("trunk") else 3
    active = rng.permutation(d)[:size]
    make = _maker(rng, active)
    if kind in ("twins", "rescaled twins"):
        return [standard(make(), measure)] * 2, all_pairs(2, "merge")
    if kind == "siblings":
        return _siblings(make, measure, _signed(rng, 0.3, 0.9)), all_pairs(2, "weight")
    if kind in ("noisy neighbour", "imbalanced"):
        return _siblings(make, measure, _signed(rng, 0.6, 0.9)), all_pairs(2, "weight")
    if kind == "strangers":
        sets = _different(rng, d, size, 2)
        return [standard(_maker(rng, own)(), measure) for own in sets], all_pairs(2, "decouple")
    if kind == "representation":
        return [standard(make(), measure) for _ in range(2)], all_pairs(2, "weight")
    if kind.endswith("trunk"):
        return [standard(_network(rng, active, NARROW), measure) for _ in range(2)], all_pairs(2, "weight")
    if kind == "mixed families":
        return _exchangeable(make, measure, 3, rng.uniform(0.5, 0.8)), all_pairs(3, "weight")
    if kind == "two clusters":
        sets = _different(rng, d, size, 2)
        parts = [cluster(rng, own, measure, CLUSTER) for own in sets]
        truth = all_pairs(2 * CLUSTER, "decouple")
        for own in (names(2 * CLUSTER)[:CLUSTER], names(2 * CLUSTER)[CLUSTER:]):
            truth |= {frozenset(pair): "weight" for pair in combinations(own, 2)}
        return [*parts[0], *parts[1]], truth
    if kind == "chain":
        g = [standard(_maker(rng, own)(), measure) for own in _different(rng, d, size, 5)]
        truth = all_pairs(4, "decouple") | {frozenset((f"y{t}", f"y{t + 1}")): "weight" for t in range(3)}
        return [_related(g[t], g[t + 1], 0.5**0.5) for t in range(4)], truth
    raise ValueError(f"no kind {kind!r}")


KINDS = (
    "twins", "rescaled twins", "siblings", "strangers", "representation", "noisy neighbour", "imbalanced",
    "mixed families", "two clusters", "chain", "narrow trunk", "wide trunk",
)
CLEAR = ("twins", "rescaled twins", "strangers", "representation", "mixed families", "two clusters")
"""Kinds whose truth 300 rows leave no doubt of: no weak correlations, no noise that drowns them, no few rows."""


def draw(kind: str, seed: int) -> Problem:
    """One problem of a kind."""
    rng = np.random.default_rng([seed, sum(kind.encode())])
    d = 10 if kind == "representation" or kind.endswith("trunk") else 6
    measure = rng.normal(size=(N_MEASURE, d))
    functions, truth = _functions(kind, rng, d, measure)
    n = len(functions)
    rows = {"imbalanced": 2000, "mixed families": 600}.get(kind, ROWS)
    X = rng.normal(size=(rows + HELD, d))
    eta = np.column_stack([f(X) for f in functions])
    noise = rng.uniform(0.2, 0.6, n)
    if kind == "noisy neighbour":
        noise = rng.uniform(0.02, 0.05) * np.array([1.0, np.exp(rng.uniform(np.log(10.0), np.log(100.0)))])
    Y = eta + noise * rng.normal(size=eta.shape)
    families = ["gaussian"] * n
    if kind == "mixed families":
        families = ["gaussian", "bernoulli", "poisson"]
        Y[:, 1] = rng.random(len(X)) < 1.0 / (1.0 + np.exp(-1.5 * eta[:, 1]))
        Y[:, 2] = rng.poisson(np.exp(0.5 + 0.7 * eta[:, 2]))
    if kind == "rescaled twins":
        Y[:, 1] = 5.0 * rng.normal() + rng.choice([-1, 1]) * np.exp(rng.uniform(-2.0, 2.0)) * Y[:, 1]
    if kind == "imbalanced":
        Y[20:rows, 0] = np.nan
    learn, held = (
        Tasks.from_arrays(X[part], Y[part], families, names=names(n))
        for part in (slice(rows), slice(rows, None))
    )
    trunk = kind.endswith("trunk")
    return Problem(kind, seed, learn, held, truth, NARROW if kind == "narrow trunk" else WIDE, by_prediction=trunk)
