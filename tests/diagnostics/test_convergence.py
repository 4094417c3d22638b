"""Convergence checks: made-up draws with one fault each must be flagged for that fault, good ones must pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from bmtl.diagnostics import checks, guide_k
from bmtl.diagnostics.convergence import problems
from bmtl.fitting.draws import Draws

CHAINS, N = 4, 1000


def sampled(value: np.ndarray | None = None, **stats: np.ndarray):
    rng = np.random.default_rng(0)
    value = rng.normal(size=(CHAINS, N, 3)) if value is None else value
    stats = {"diverging": np.zeros((CHAINS, N), dtype=bool), "energy": rng.normal(size=(CHAINS, N))} | stats
    return checks(Draws({"z": value}, stats=stats), {"noise of y": value})


def failed(table) -> set[str]:
    return set(table.loc[~table["passed"], "check"])


def test_good_draws_pass() -> None:
    table = sampled()
    assert not failed(table) and problems(table) == ""
    assert set(table["check"]) == {"R-hat", "bulk ESS", "tail ESS", "divergences", "E-BFMI"}
    assert table["needed"].all()


def test_one_chain_elsewhere() -> None:
    value = np.random.default_rng(1).normal(size=(CHAINS, N, 3))
    value[2, :, 1] += 2.0
    table = sampled(value)
    assert "R-hat" in failed(table) and "bulk ESS" in failed(table)
    assert "R-hat of noise of y is" in problems(table) and "(wanted: ≤ 1.01)" in problems(table)


def test_one_chain_of_another_width() -> None:
    """Same means: only the folded part of a rank-normalised R-hat sees it."""
    value = np.random.default_rng(1).normal(size=(CHAINS, N))
    value[1] *= 5.0
    assert "R-hat" in failed(sampled(value))


def test_sticky_chains() -> None:
    rng = np.random.default_rng(2)
    value = lfilter([1.0], [1.0, -0.99], rng.normal(size=(CHAINS, N)), axis=1)
    assert {"bulk ESS", "tail ESS"} <= failed(sampled(value))


def test_one_bad_coordinate_among_many_is_seen() -> None:
    rng = np.random.default_rng(3)
    value = rng.normal(size=(CHAINS, N, 20))
    value[..., 13] = lfilter([1.0], [1.0, -0.99], value[..., 13], axis=1)
    assert "bulk ESS" in failed(sampled(value))


def test_divergences() -> None:
    diverging = np.zeros((CHAINS, N), dtype=bool)
    diverging[3, 17] = True
    table = sampled(diverging=diverging)
    assert failed(table) == {"divergences"}
    assert problems(table) == "divergences of chains is 1 (wanted: = 0)"


def test_energy_that_wanders() -> None:
    energy = np.random.default_rng(4).normal(size=(CHAINS, N))
    energy[1] = np.cumsum(energy[1])
    assert failed(sampled(energy=energy)) == {"E-BFMI"}


def test_no_energy_no_check_of_it() -> None:
    draws = Draws({"z": np.zeros((CHAINS, N))}, stats={"diverging": np.zeros((CHAINS, N), dtype=bool)})
    assert checks(draws, {})["check"].tolist() == ["divergences"]


def optimised(settled: bool = True, ratio: np.ndarray | None = None, restarts: int = 2):
    trace = np.arange(10.0 * restarts).reshape(restarts, 10)
    elbo = np.arange(restarts, dtype=float)
    return Draws({"z": np.zeros((1, 5))}, {}, trace, elbo, ratio, settled)


def test_an_optimiser_that_settled() -> None:
    ratio = np.random.default_rng(5).normal(scale=0.1, size=1000)
    table = checks(optimised(ratio=ratio), {})
    assert not failed(table)
    assert table["check"].tolist() == ["settled", "Pareto k̂", "ELBO spread"]
    assert table["value"].iloc[2] == 1.0


def test_a_restart_that_failed_is_told_and_the_others_are_compared() -> None:
    draws = optimised(restarts=3)
    draws.elbo[0] = -np.inf
    table = checks(draws, {})
    assert problems(table) == "" and not draws.failed
    assert table["check"].tolist() == ["settled", "ELBO spread", "finite ELBO"]
    assert table["value"].tolist()[1:] == [1.0, 2.0] and not table["passed"].iloc[2]
    draws.elbo[:] = -np.inf
    assert draws.failed


def test_an_optimiser_that_did_not() -> None:
    table = checks(optimised(settled=False), {})
    assert failed(table) == {"settled"} and "settled of ELBO is 10" in problems(table)


def test_a_bad_guide_is_told_but_does_not_unconverge() -> None:
    ratio = np.random.default_rng(6).standard_cauchy(size=1000) * 3
    table = checks(optimised(ratio=ratio), {})
    assert failed(table) == {"Pareto k̂"} and problems(table) == ""


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_guide_k_finds_the_shape(k: float) -> None:
    """Ratios of a Pareto tail of known shape."""
    u = np.random.default_rng(7).uniform(size=20_000)
    found = guide_k(optimised(ratio=np.log1p((u**-k - 1) / k)))
    # The shape is fitted to 3√S tail draws; its standard error is about (1 + k)/√(tail).
    assert found == pytest.approx(k, abs=4 * (1 + k) / np.sqrt(3 * np.sqrt(20_000)))


def test_guide_k_of_few_draws_is_not_known() -> None:
    assert np.isnan(guide_k(optimised(ratio=np.zeros(10))))


def test_infinite_ratios_do_not_count() -> None:
    ratio = np.random.default_rng(5).normal(scale=0.1, size=1000)
    assert guide_k(optimised(ratio=np.append(ratio, [-np.inf] * 5))) == guide_k(optimised(ratio=ratio))
