"""The models: their story written out, finite gradients where a fit starts, and conjugate closed forms."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy import stats

import bmtl
from bmtl.arrangement import Arrangement
from bmtl.data import Data, Design, arrays
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.engine.replay import Replay
from bmtl.fitting import numpyro_latent, pyro_latent
from bmtl.fitting.settling import EVALUATION_DRAWS
from bmtl.model import specification
from bmtl.models import Decoupled, Merged, SharedTrunk
from bmtl.noise import Known
from bmtl.relations import Clustered, Correlated, Exchangeable, LowRank, Sparse
from bmtl.storage import restore
from bmtl.trunks import MLP, Fourier, Identity, Linear

MIXED = Arrangement(((("burst", "size"), ("any",)), (("count", "tail"),)), frozenset({"size"}))
MODELS = {
    "shared identity": SharedTrunk(Identity()),
    "shared linear": SharedTrunk(Linear(2)),
    "shared tanh": SharedTrunk(),
    "shared relu": SharedTrunk(MLP((8,), "relu")),
    "shared fourier": SharedTrunk(Fourier(8)),
    "mixed tanh": SharedTrunk(MLP((4,)), arrangement=MIXED),
    "exchangeable identity": SharedTrunk(Identity(), Exchangeable()),
    "correlated linear": SharedTrunk(Linear(2), Correlated(), arrangement=MIXED),
    "sparse identity": SharedTrunk(Identity(), Sparse(1.5)),
    "low rank tanh": SharedTrunk(MLP((4,)), LowRank(), arrangement=MIXED),
    "clustered linear": SharedTrunk(Linear(2), Clustered(3, 0.5)),
    "clustered around centres": SharedTrunk(Linear(2), Clustered(exact=False), arrangement=MIXED),
    "decoupled tanh": Decoupled(MLP((4,))),
    "merged fourier": Merged(Fourier(8), flipped=("any",)),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def test_the_story(five, programs) -> None:
    """η = c ± a · tanh(x W + b) · w / √k of the own head and trunk, task by task, in plain numpy."""
    model = MODELS["mixed tanh"]
    sites = programs.draw(model, five, seed=1)
    design = Design.of(five)
    data = Data(design, arrays(five, design))
    engine = Replay({name: value[None] for name, value in sites.items()})
    model.program(engine, data)
    # Sorted: trunk 0 holds the heads (any) and (burst, size), trunk 1 the head (count, tail).
    head = {"any": 0, "burst": 1, "size": 1, "count": 2, "tail": 2}
    trunk = {"any": 0, "burst": 0, "size": 0, "count": 1, "tail": 1}
    sign = {"size": -1.0}
    for block in data.blocks():
        for j, t in enumerate(block.tasks):
            name = five.names[t]
            w, b = sites["trunk_w0"][trunk[name]], sites["trunk_b0"][trunk[name]]
            f = np.tanh(five.Z @ w + b) @ sites["head"][head[name]] / 2.0
            eta = sites["intercept"][t] + sign.get(name, 1.0) * sites["amplitude"][t] * f
            np.testing.assert_allclose(engine.eta[block.name][0, j], eta, rtol=1e-4, atol=1e-5)


@every_model
def test_gradients_are_finite_where_a_fit_starts(model, five) -> None:
    """Prior draws of several seeds, on both engines."""
    assert_finite_starts(model, five)


def test_gradients_of_the_other_families_are_finite_too(seven) -> None:
    assert_finite_starts(SharedTrunk(MLP((4,))), seven)


def assert_finite_starts(model, tasks) -> None:
    design = Design.of(tasks)
    values = arrays(tasks, design)

    def program(engine, held, scale=1.0):
        model.program(engine, Data(design, held, scale))

    held = {name: jax.numpy.asarray(value) for name, value in values.items()}
    latent = numpyro_latent.Latent(partial(program, NumPyroEngine()), held, lambda name: False)
    gradient = jax.jit(jax.value_and_grad(lambda z: latent.log_density(z, held)))
    for seed in range(10):
        value, slope = gradient(latent.start(jax.random.PRNGKey(seed), held))
        assert np.isfinite(value) and np.all(np.isfinite(slope)) and np.any(slope != 0)

    tensors = {name: torch.as_tensor(value) for name, value in values.items()}
    with torch.random.fork_rng():
        for seed in range(10):
            torch.manual_seed(seed)
            latent_ = pyro_latent.Latent(program, "cpu", tensors, lambda name: False)
            z = latent_.start().requires_grad_()
            value = latent_.log_density(z, tensors)
            (slope,) = torch.autograd.grad(value, z)
            assert torch.isfinite(value) and torch.isfinite(slope).all() and (slope != 0).any()


@every_model
def test_specification_there_and_back(model) -> None:
    import json

    assert restore(json.loads(json.dumps(specification(model)))) == model


def test_wrong_tasks_are_refused(five) -> None:
    model = SharedTrunk(Identity(), arrangement=Arrangement.shared(["a", "b"]))
    with pytest.raises(bmtl.TaskError, match="the arrangement holds"):
        bmtl.fit(model, five)


# The conjugate model: known noise and amplitude, so that intercept and coefficients are Gaussian given the outcomes.
NOISE, AMPLITUDE = 3.0, 0.8


@pytest.fixture(scope="module")
def conjugate():
    """Tasks, model, and the design matrix, posterior mean and covariance of (intercept, head), all closed form."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(25, 3)) * [1.0, 20.0, 0.1]
    y = 100.0 + 4.0 * X[:, 0] - 0.2 * X[:, 1] + NOISE * rng.normal(size=25)
    tasks = bmtl.Tasks.from_arrays(X, y[:, None], ["gaussian"], names=["y"])
    model = SharedTrunk(Identity(), noise=Known(NOISE), amplitude=Known(AMPLITUDE))
    sigma = NOISE / y.std()
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    A = np.column_stack([np.ones(25), AMPLITUDE * Z / np.sqrt(3)])
    covariance = np.linalg.inv(np.eye(4) + A.T @ A / sigma**2)
    mean = covariance @ A.T @ ((y - y.mean()) / y.std()) / sigma**2
    return tasks, model, A, mean, covariance


@pytest.fixture(scope="module")
def sampled(conjugate):
    tasks, model, *_ = conjugate
    return bmtl.fit(model, tasks, method="nuts", seed=2, chains=10, warmup=500, draws=1000)


def coordinates(fit) -> np.ndarray:
    """Draws of (intercept, head), ``chains × draws × 4``."""
    return np.concatenate([fit.draws.sites["intercept"], fit.draws.sites["head"][:, :, 0]], axis=-1).astype(float)


def assert_mean(values: np.ndarray, truth: float, least_ess: float = 1000.0) -> None:
    """The mean of ``chains × draws`` is the truth within five Monte Carlo errors, at a least effective size."""
    ess = float(array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean"))
    assert ess >= least_ess
    assert abs(values.mean() - truth) < 5 * values.std() / np.sqrt(ess)


def test_nuts_has_the_conjugate_posterior(conjugate, sampled) -> None:
    *_, mean, covariance = conjugate
    assert sampled.converged
    z = coordinates(sampled)
    for i in range(4):
        assert_mean(z[..., i], mean[i])
        for j in range(i + 1):
            assert_mean((z[..., i] - mean[i]) * (z[..., j] - mean[j]), covariance[i, j])


def test_full_rank_svi_has_the_conjugate_posterior(conjugate) -> None:
    tasks, model, _, mean, covariance = conjugate
    fit = bmtl.fit(model, tasks, guide="full_rank", seed=0, restarts=1, draws=4000)
    z = coordinates(fit)[0]
    sd = np.sqrt(np.diag(covariance))
    assert np.max(np.abs(z.mean(axis=0) - mean) / sd) < 0.1
    np.testing.assert_allclose(z.std(axis=0), sd, rtol=0.1)
    correlation = covariance / np.outer(sd, sd)
    assert np.max(np.abs(np.corrcoef(z.T) - correlation)) < 0.1


def test_elbo_is_the_evidence_of_the_conjugate_model(conjugate) -> None:
    """A full-rank guide can be the posterior itself; log p/q of its draws, and the ELBO, are then the log evidence."""
    tasks, model, A, *_ = conjugate
    fit = bmtl.fit(model, tasks, guide="full_rank", seed=0, restarts=1)
    sigma = NOISE / tasks.y_scale[0]
    evidence = stats.multivariate_normal(cov=A @ A.T + sigma**2 * np.eye(25)).logpdf(tasks.y_std(0))
    ratio = fit.draws.log_ratio - evidence
    error = np.exp(ratio).std() / np.sqrt(len(ratio))
    assert error < 0.01
    assert abs(np.exp(ratio).mean() - 1) < 5 * error
    assert abs(ratio.mean()) < 0.05
    # log p(z, y) of four Gaussian coordinates has variance 4/2.
    assert abs(fit.draws.elbo[0] - evidence) < 5 * np.sqrt(2 / EVALUATION_DRAWS)


def test_loo_equals_the_exact_one(conjugate, sampled) -> None:
    """PSIS-LOO against the density of each outcome given the others, cell by cell."""
    tasks, _, A, *_ = conjugate
    sigma, unit, y = NOISE / tasks.y_scale[0], tasks.y_scale[0], tasks.y_std(0)
    exact = []
    for i in range(25):
        rest = np.arange(25) != i
        covariance = np.linalg.inv(np.eye(4) + A[rest].T @ A[rest] / sigma**2)
        mean = A[i] @ covariance @ A[rest].T @ y[rest] / sigma**2
        sd = np.sqrt(A[i] @ covariance @ A[i] + sigma**2)
        exact.append(stats.norm(mean, sd).logpdf(y[i]) - np.log(unit))
    found = sampled.loo["y"]
    assert found.trusted
    # Error of the LOO by repeating it on each chain alone.
    chains = np.array([
        bmtl.diagnostics.psis_loo(own[None], sampled.draws).pointwise for own in sampled.log_likelihood[0]
    ])
    difference, root = found.pointwise - exact, np.sqrt(len(chains))
    assert np.all(np.abs(difference) < 5 * chains.std(axis=0, ddof=1) / root)
    assert abs(difference.sum()) < 5 * chains.sum(axis=1).std(ddof=1) / root


def test_predictions_equal_the_conjugate_ones(conjugate, sampled) -> None:
    tasks, _, _, mean, covariance = conjugate
    new = np.array([[0.5, -10.0, 0.05], [3.0, 40.0, 0.0]])
    found = sampled.predict(new, seed=1)
    A = np.column_stack([np.ones(2), AMPLITUDE * tasks.standardise(new) / np.sqrt(3)])
    for row in range(2):
        centre = tasks.y_centre[0] + tasks.y_scale[0] * A[row] @ mean
        assert_mean(found["mean"]["y"].values[..., row].astype(float), centre)
        drawn = found["predictions"]["y"].values[..., row].astype(float)
        assert_mean(drawn, centre)
        variance = tasks.y_scale[0] ** 2 * A[row] @ covariance @ A[row] + NOISE**2
        assert_mean((drawn - centre) ** 2, variance)
