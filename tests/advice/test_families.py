"""The screen on outcomes of every family: related functions, unrelated ones, none, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from bmtl.advice import arrange
from bmtl.advice.categories import can_merge
from bmtl.advice.screen import screen, verdict
from bmtl.families import Categorical, Gaussian, Ordinal
from bmtl.tasks import Tasks

N = 400
FAMILIES = ("lognormal", "gamma", "beta", "binomial", "zero_inflated_poisson", "ordinal", "categorical")

every_family = pytest.mark.parametrize("family", FAMILIES)


def outcomes(family: str, f: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes whose linear predictor is ``f`` (of a categorical task f, 0 and −f), and their exposures."""
    n, exposure = len(f), np.ones(len(f))
    if family == "binomial":
        exposure = rng.integers(3, 12, n).astype(float)
    elif family == "zero_inflated_poisson":
        exposure = rng.uniform(0.5, 3.0, n)
    p = special.expit(f)
    y = {
        "lognormal": lambda: np.exp(3.0 + f + 0.5 * rng.normal(size=n)),
        "gamma": lambda: rng.gamma(4.0, 0.25 * np.exp(f)),
        "beta": lambda: rng.beta(8 * p, 8 * (1 - p)).clip(1e-6, 1 - 1e-6),
        "binomial": lambda: rng.binomial(exposure.astype(int), p),
        "zero_inflated_poisson": lambda: rng.poisson(exposure * np.exp(1.0 + f)) * (rng.random(n) > 0.25),
        "ordinal": lambda: np.searchsorted([-1.0, 0.3, 1.5], 1.5 * f + rng.logistic(size=n)),
        "categorical": lambda: np.argmax(np.c_[2 * f, 0 * f, -2 * f] + rng.gumbel(size=(n, 3)), axis=1),
    }[family]()
    return y.astype(float), exposure


def beside_gaussian(family: str, related: bool, seed: int):
    """The screen of a task of that family beside a Gaussian one, of the same function or of another."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 3))
    f, g = 1.2 * np.tanh(X[:, 0] + 0.8 * X[:, 1]), 1.2 * np.sin(1.5 * X[:, 2])
    y, exposure = outcomes(family, f, rng)
    Y = np.column_stack([y, 7.0 - 2.0 * (f if related else g) + 0.8 * rng.normal(size=N)])
    exposures = np.column_stack([exposure, np.ones(N)])
    return screen(Tasks.from_arrays(X, Y, [family, "gaussian"], exposure=exposures))


def outcome(pair) -> str:
    return verdict(pair.p_merge, pair.p_weight, pair.p_decouple)


@every_family
def test_the_same_function(family: str) -> None:
    found = beside_gaussian(family, True, 36)
    (pair,) = found.pairs
    # One predictor of several is not the whole of a categorical task, so that it can only be related.
    assert outcome(pair) == ("weight" if family == "categorical" else "merge")
    assert abs(pair.correlation) > 0.8 and np.all(found.signal > 0.99)
    if family != "categorical":
        assert pair.correlation < 0 and pair.scale < 0 and pair.gain_a > 0
        # An ordinal predictor is 1.5 f here, the others f; the Gaussian task is −2 f.
        assert pair.scale == pytest.approx(-2.0 / (1.5 if family == "ordinal" else 1.0), rel=0.3)


@every_family
def test_unrelated_functions(family: str) -> None:
    (pair,) = beside_gaussian(family, False, 32).pairs
    assert outcome(pair) == "decouple"


@every_family
def test_no_function_at_all(family: str) -> None:
    """Outcomes that vary more than their family says are not thereby a function of the inputs."""
    rng = np.random.default_rng(33)
    X = rng.normal(size=(N, 3))
    y, exposure = outcomes(family, rng.normal(size=N), rng)
    Y = np.column_stack([y, X[:, 0] + 0.5 * rng.normal(size=N)])
    found = screen(Tasks.from_arrays(X, Y, [family, "gaussian"], exposure=np.column_stack([exposure, np.ones(N)])))
    assert found.signal[0] < 0.5 and outcome(found.pairs[0]) in ("decouple", "undecided")


@pytest.mark.parametrize("family", ["lognormal", "gamma"])
def test_units_of_positive_outcomes(family: str) -> None:
    rng = np.random.default_rng(34)
    X = rng.normal(size=(150, 2))
    y, _ = outcomes(family, X[:, 0], rng)
    z = X[:, 0] + 0.5 * rng.normal(size=150)
    found = [
        screen(Tasks.from_arrays(X, np.column_stack([unit * y, z]), [family, "gaussian"])).pairs[0]
        for unit in (1.0, 1e14)
    ]
    for name in ("p_merge", "p_decouple", "correlation", "scale", "gain_a"):
        assert getattr(found[0], name) == pytest.approx(getattr(found[1], name), rel=1e-4, abs=1e-6)


def test_two_categorical_tasks_of_the_same_categories_can_be_one() -> None:
    rng = np.random.default_rng(35)
    X = rng.normal(size=(600, 3))
    f, g = 1.5 * np.tanh(X[:, 0] + X[:, 1]), 1.5 * np.sin(1.5 * X[:, 2])
    Y = np.column_stack([outcomes("categorical", own, rng)[0] for own in (f, f, g)])
    same, other, _ = screen(Tasks.from_arrays(X, Y, ["categorical"] * 3)).pairs
    assert outcome(same) == "merge" and outcome(other) == "decouple"
    named = Categorical(("a", "b", "c"))
    (renamed,) = screen(Tasks.from_arrays(X, Y[:, :2], ["categorical", named])).pairs
    assert renamed.p_merge == 0 and outcome(renamed) == "weight"


def test_tasks_that_cannot_be_one_share_no_head() -> None:
    three, four = Categorical(("a", "b", "c")), Categorical(("a", "b", "c", "d"))
    together = can_merge([Gaussian(), three, Ordinal(("a", "b", "c")), three, four, Categorical(("a", "b", "z"))])
    groups = [np.flatnonzero(own).tolist() for own in together]
    assert groups == [[0, 2], [1, 3], [0, 2], [1, 3], [4], [5]]
    # Even where every pair would rather merge than anything else.
    for n in (4, 8):
        log_p = np.log(np.broadcast_to(np.array([0.98, 0.01, 0.01])[:, None, None], (3, n, n)))
        odd = np.arange(n) % 2 == 1
        allowed = odd[:, None] == odd
        ranked = arrange.rank(log_p, allowed)
        for labels in ranked.labels:
            heads = [head for _, head in labels]
            assert all(allowed[i, j] for i in range(n) for j in range(n) if heads[i] == heads[j])
        assert len({head for _, head in ranked.labels[0]}) == 2 and ranked.kind["merge"] == 0
        assert ranked.probability.sum() == pytest.approx(1.0)
