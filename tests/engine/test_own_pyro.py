"""Pyro programs of one's own, which know of one run only: their log density at several, and the fits that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import bmtl
from bmtl.data import Data, Design, arrays
from bmtl.engine.score import Score
from bmtl.fitting import MAP, SVI
from bmtl.fitting.pyro_svi import run
from bmtl.models import FromProgram

NOISE = 0.5


@pytest.fixture(autouse=True)
def as_in_a_fit() -> Iterator[None]:
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        yield


def plain(x: Any) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("both", 2):
        shift = pyro.sample("shift", dist.Exponential(1.0))
    for t, name in enumerate(("u", "v")):
        pyro.sample(name, dist.Normal(x @ w + shift[t], NOISE))


def branching(x: Any) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    shift = pyro.sample("shift", dist.Exponential(torch.ones(2)).to_event(1))
    for t, name in enumerate(("u", "v")):
        pyro.sample(name, dist.Normal(x @ w + (shift[t] if shift[t] > 0 else -shift[t]), NOISE))


def changing(x: Any) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    shift = pyro.sample("up" if w > 0 else "down", dist.Normal(0.0, 1.0))
    for name in ("u", "v"):
        pyro.sample(name, dist.Normal(w * x[:, 0] + shift, NOISE))


def subsampled(x: Any) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("some", len(x), subsample_size=3) as rows:
        pyro.sample("u", dist.Normal((x @ w)[rows], NOISE))


def linear(x: Any) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2, x.shape[1]]).to_event(2))
    for t, name in enumerate(("u", "v")):
        pyro.sample(name, dist.Normal(x @ w[t], NOISE))


def conjugate(tasks: bmtl.Tasks, t: int, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the weights of a task of `linear`, given the cells of a mask over rows."""
    Z, y = tasks.Z[mask], tasks.y_std(t)[mask]
    S = np.linalg.inv(np.eye(Z.shape[1]) + Z.T @ Z / NOISE**2)
    return S @ Z.T @ y / NOISE**2, S


@pytest.mark.parametrize("layout", ["wide", "long"])
@pytest.mark.parametrize(("program", "vectorised"), [(plain, True), (plain, False), (branching, False)])
def test_log_density_of_several_runs(program: Any, vectorised: bool, layout: str, pair: Any, grouped: Any) -> None:
    """Each with its own mask, in a minibatch that stands for twice its rows, under powers."""
    tasks = pair if layout == "wide" else grouped("gaussian").select(["u", "v"])
    rng, design = np.random.default_rng(3), Design.of(tasks)
    values = arrays(tasks, design) | {"power": np.array([0.5, 2.0], dtype=np.float32)}
    (mask,) = (name for name in values if name.startswith("mask/"))
    masks = values[mask] & (rng.random((3, *values[mask].shape)) < 0.7)
    w, shift = rng.normal(size=(3, tasks.Z.shape[1])), rng.exponential(size=(3, 2))
    held = {name: torch.as_tensor(value) for name, value in (values | {mask: masks}).items()}
    sites = {"w": torch.tensor(w, dtype=torch.float32), "shift": torch.tensor(shift, dtype=torch.float32)}
    model = FromProgram(program, engine="pyro", vectorised=vectorised)
    found = Score()(lambda e: model.program(e, Data(design, held, 2.0)), sites, torch.Size([3]))
    for r in range(3):
        expected = stats.norm.logpdf(w[r]).sum() + stats.expon.logpdf(shift[r]).sum()
        for t, power in enumerate((0.5, 2.0)):
            seen = masks[r, t] if layout == "wide" else masks[r] & (values["task"] == t)
            y = values[mask.replace("mask", "y")]
            cells = stats.norm.logpdf(y[t] if layout == "wide" else y, tasks.Z @ w[r] + shift[r, t], NOISE)
            expected += 2.0 * power * cells[seen].sum()
        assert float(found[r]) == pytest.approx(expected, rel=1e-4)


def test_a_program_that_branches_says_how_to_run_it(pair: bmtl.Tasks) -> None:
    with pytest.raises(ValueError, match=r"at several values at once \(vmap: .* FromProgram\(..., vectorised=False\)"):
        bmtl.fit(FromProgram(branching, engine="pyro"), pair, method="map", restarts=1)


def test_sites_are_the_same_at_all_values(pair: bmtl.Tasks) -> None:
    design = Design.of(pair)
    held = {name: torch.as_tensor(value) for name, value in arrays(pair, design).items()}
    model, sites = FromProgram(changing, engine="pyro", vectorised=False), {"w": torch.ones(1), "down": torch.ones(1)}
    with pytest.raises(ValueError, match=r"there at all values, but \['down', 'up'\] are at some only"):
        Score()(lambda e: model.program(e, Data(design, held)), sites, torch.Size([1]))


def test_plates_do_not_subsample(pair: bmtl.Tasks) -> None:
    with pytest.raises(ValueError, match="the plate 'some' subsamples, but bmtl draws the minibatches"):
        bmtl.fit(FromProgram(subsampled, engine="pyro"), pair, method="map", restarts=1)


def test_what_needs_numpyro_says_so(pair: bmtl.Tasks) -> None:
    model = FromProgram(linear, engine="pyro")
    with pytest.raises(ValueError, match="prior_predictive runs on NumPyro, and this FromProgram does not"):
        bmtl.prior_predictive(model, pair)
    with pytest.raises(ValueError, match="marginal=True is for the numpyro engine"):
        bmtl.fit(model, pair, method="nuts", marginal=True)
    with pytest.raises(ValueError, match=r":linear is a program for the engine pyro, not for numpyro"):
        bmtl.diagnostics.simulation_based_calibration(model, pair, "svi", engine="pyro")


@pytest.mark.slow
def test_folds_and_restarts_find_their_modes(pair: bmtl.Tasks) -> None:
    design, fold = Design.of(pair), np.arange(pair.n_rows) % 3
    masks = np.stack([np.tile(fold != own, (2, 1)) for own in range(3)])
    model, settings = FromProgram(linear, engine="pyro"), MAP(restarts=2)
    found = run(model, design, arrays(pair, design), settings, 0, [{"mask/gaussian": own} for own in masks])
    for own, mask in zip(found, masks, strict=True):
        assert own.settled and own.elbo.shape == (2,)
        for t in range(2):
            mean, S = conjugate(pair, t, mask[t])
            assert np.all(np.abs(own.sites["w"][0, 0, t] - mean) < 0.02 * np.sqrt(np.diag(S)))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [256, 20])
def test_svi_finds_the_conjugate_posterior(batch_size: int, pair: bmtl.Tasks) -> None:
    settings = SVI(guide="full_rank", restarts=1, batch_size=batch_size, draws=4000)
    fit = bmtl.fit(FromProgram(linear, engine="pyro"), pair, method=settings, seed=0)
    assert fit.converged and fit.engine == "pyro"
    for t in range(2):
        mean, S = conjugate(pair, t, np.ones(pair.n_rows, dtype=bool))
        w = fit.draws.sites["w"][0, :, t]
        # Monte Carlo error of 4000 draws, and what is left of the noise of steps.
        assert np.all(np.abs(w.mean(axis=0) - mean) < (4 / np.sqrt(4000) + 0.1) * np.sqrt(np.diag(S)))
        np.testing.assert_allclose(w.std(axis=0), np.sqrt(np.diag(S)), rtol=4 / np.sqrt(8000) + 0.05)
        correlation = S[0, 1] / np.sqrt(S[0, 0] * S[1, 1])
        assert np.corrcoef(w.T)[0, 1] == pytest.approx(correlation, abs=4 / np.sqrt(4000) + 0.05)
