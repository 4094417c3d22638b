"""Heads integrated out: evidence and posterior against brute force, and what it saves."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

import bmtl
from bmtl.arrangement import Arrangement
from bmtl.data import Data, Design, arrays, pack, packed
from bmtl.engine.replay import Replay
from bmtl.marginal import UNROLLED, Marginal, Moments, Rows, cholesky, solve
from bmtl.models import Decoupled, SharedTrunk
from bmtl.noise import Known
from bmtl.relations import Correlated, Exchangeable, Independent, Sparse
from bmtl.trunks import MLP, Identity

RELATIONS = [Independent(), Exchangeable(), Correlated(), Sparse()]


@pytest.fixture(scope="module")
def three():
    """Three Gaussian tasks on 20 rows, some outcomes missing."""
    rng = np.random.default_rng(21)
    X = rng.normal(size=(20, 2))
    Y = X @ rng.normal(size=(2, 3)) * [1.0, 5.0, 0.1] + rng.normal(size=(20, 3)) * [0.5, 4.0, 0.02] + [0.0, 30.0, -2.0]
    Y[rng.random(Y.shape) < 0.2] = np.nan
    return bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 3, names=["a", "b", "c"])


def brute_force(model, tasks, sites) -> float:
    """Log evidence from the program itself: η is affine in heads and intercepts, whose priors are normal."""
    design = Design.of(tasks)
    data = Data(design, arrays(tasks, design))

    def eta(head, intercept):
        engine = Replay({name: value[None] for name, value in {**sites, "head": head, "intercept": intercept}.items()})
        model.program(engine, data)
        (found,) = engine.eta.values()
        return np.asarray(found[0], dtype=float), np.asarray(next(iter(engine.noise.values()))[0], dtype=float)

    free = "intercept" in sites
    loc = design.intercept_loc if free else np.zeros(0)
    zero = np.zeros_like(sites["head"])
    start, noise = eta(zero, loc)
    columns = []
    for i in range(zero.size):
        step = zero.copy()
        step.flat[i] = 1.0
        columns.append(eta(step, loc)[0] - start)
    for t in range(len(loc)):
        columns.append((eta(zero, loc + np.eye(len(loc))[t])[0] - start) * design.intercept_scale[t])
    mask = data.values["mask/gaussian"]
    J = np.stack([column[mask] for column in columns], axis=1)
    sd = np.broadcast_to(noise, mask.shape)[mask]
    return stats.multivariate_normal(start[mask], J @ J.T + np.diag(sd**2)).logpdf(data.values["y/gaussian"][mask])


@pytest.mark.parametrize("layout", ["wide", pytest.param("long", marks=pytest.mark.slow)])
@pytest.mark.parametrize("arrangement", ["shared", "apart", "mixed"])
@pytest.mark.parametrize("trunk", [Identity(), MLP((3,))], ids=["identity", "tanh"])
@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: type(relation).__name__.lower())
def test_evidence(relation, trunk, arrangement, layout, three, grouped, programs) -> None:
    tasks = three if layout == "wide" else grouped("gaussian")
    a, b, c = tasks.names
    arranged = {
        "shared": None,
        "apart": Arrangement.decoupled(tasks.names),
        "mixed": Arrangement((((c,), (a,)), ((b,),))),
    }[arrangement]
    model = SharedTrunk(trunk, relation, arrangement=arranged)
    sites = programs.draw(model, tasks, seed=7)
    design = Design.of(tasks)
    found = Marginal(model, design, arrays(tasks, design)).evidence(Replay(sites))
    np.testing.assert_allclose(float(found.log), brute_force(model, tasks, sites), rtol=2e-4)


@pytest.mark.parametrize("in_segments", [False, True], ids=["rows", "segments"])
@pytest.mark.parametrize("arrangement", ["shared", "decoupled"])
def test_moments_of_groups(arrangement, in_segments, grouped, programs) -> None:
    """Sums over the rows of each task alone are those over all rows with the others masked."""
    tasks = grouped("gaussian")
    model = SharedTrunk(MLP((3,)), arrangement=getattr(Arrangement, arrangement)(tasks.names))
    sites = programs.draw(model, tasks, seed=7)
    design = Design.of(tasks)
    plain = arrays(tasks, design)
    rows, segment = packed(plain["task"])
    values = {**pack(plain, rows), "segment": segment} if in_segments else plain
    found = Marginal(model, design, values)._rows(Replay(sites))

    phi = np.asarray(model.trunk.sample(Replay(sites), plain["x"], 1 if arrangement == "shared" else 3))
    A = np.concatenate([np.ones((*phi.shape[:2], 1)), phi / np.sqrt(3)], axis=-1).astype(np.float32)
    mask = (plain["task"] == np.arange(3)[:, None]) & plain["mask/gaussian"]
    y = np.broadcast_to(plain["y/gaussian"], mask.shape)
    dense = Rows(A, y, mask.astype(np.float32), np.arange(3) % len(A))
    assert found.A.shape == ((len(segment), 8, 4) if in_segments else (tasks.n_rows, 1, 4))
    beta = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)
    for ours in (found, Moments.of(found)):
        np.testing.assert_array_equal(ours.counts(), mask.sum(axis=1))
        np.testing.assert_allclose(ours.gram(), dense.gram(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.left(beta), dense.left(beta), rtol=1e-4, atol=1e-4)
        # Features of one trunk are nearly collinear within a group, and least squares are kept in single precision.
        np.testing.assert_allclose(ours.squares(beta), dense.squares(beta), rtol=2e-3)


def test_completed_draws_are_conditional_posterior_draws(three, programs) -> None:
    """Heads and intercepts drawn at fixed other sites have the mean and covariance of the linear regression."""
    model = SharedTrunk(Identity(), Correlated())
    sites = programs.draw(model, three, seed=3)
    design = Design.of(three)
    values = arrays(three, design)
    n = 20_000
    held = {name: np.broadcast_to(value, (1, n, *value.shape)) for name, value in sites.items()}
    hyper = {name: value for name, value in held.items() if name not in ("head", "intercept")}
    drawn = Marginal(model, design, values).complete(hyper, seed=1)
    z = np.concatenate([drawn["intercept"][0], drawn["head"][0].reshape(n, -1)], axis=1).astype(float)
    tril, a, sigma = sites["head_correlation"], sites["amplitude"], sites["noise_gaussian"]
    rows, outcomes, weights = [], [], []
    for t in range(3):
        for row, y in zip(three.rows[t], three.y_std(t), strict=True):
            x = three.Z[row] / np.sqrt(2)
            rows.append(np.concatenate([np.eye(3)[t], np.kron(a[t] * tril[t], x)]))
            outcomes.append(y)
            weights.append(sigma[t] ** -2)
    A, y, w = np.array(rows), np.array(outcomes), np.array(weights)
    prior_mean = np.concatenate([design.intercept_loc, np.zeros(6)])
    precision = np.diag(np.concatenate([design.intercept_scale**-2, np.ones(6)]))
    covariance = np.linalg.inv(precision + A.T @ (w[:, None] * A))
    mean = covariance @ (precision @ prior_mean + A.T @ (w * y))
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(z.mean(axis=0) - mean) < 5 * sd / np.sqrt(n))
    # The standard error of a sample correlation is below 1/√n.
    correlation = covariance / np.outer(sd, sd)
    assert np.max(np.abs(np.corrcoef(z.T) - correlation)) < 5 / np.sqrt(n)
    np.testing.assert_allclose(z.std(axis=0), sd, rtol=5 / np.sqrt(2 * n))


@pytest.fixture(scope="module")
def both_ways(three):
    """A fit with heads sampled and one with them integrated out, and the leapfrogs of each."""
    options = {"method": "nuts", "seed": 1, "chains": 8, "warmup": 500, "draws": 500}
    return [bmtl.fit(SharedTrunk(Identity()), three, marginal=on, **options) for on in (False, True)]


def test_same_posterior(both_ways) -> None:
    from arviz_stats.base import array_stats

    plain, marginal = both_ways
    assert plain.converged and marginal.converged
    for site in ("intercept", "amplitude", "noise_gaussian"):
        for t in range(3):
            one, two = (fit.draws.sites[site][..., t].astype(float) for fit in both_ways)
            errors = [
                v.std() / np.sqrt(float(array_stats.ess(v, chain_axis=0, draw_axis=1, method="mean")))
                for v in (one, two)
            ]
            assert max(errors) < 0.1 * one.std()
            assert abs(one.mean() - two.mean()) < 5 * np.hypot(*errors)
    table = plain.elpd().merge(marginal.elpd(), on="task")
    np.testing.assert_allclose(table["elpd_x"], table["elpd_y"], atol=0.5)


def test_fewer_leapfrogs(both_ways) -> None:
    plain, marginal = (fit.draws.stats["n_steps"].mean() for fit in both_ways)
    assert marginal < 0.8 * plain


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        (Decoupled(Identity()), ValueError, "those of Decoupled are not"),
        (SharedTrunk(Identity(), arrangement=Arrangement.merged("abc")), ValueError, "the arrangement merges some"),
    ],
    ids=["decoupled", "merged"],
)
def test_models_that_cannot(model, error, match, three) -> None:
    with pytest.raises(error, match=match):
        bmtl.fit(model, three, method="nuts", marginal=True)


def test_tasks_that_cannot(five, three) -> None:
    with pytest.raises(bmtl.TaskError, match=r"not gaussian: \['tail', 'any', 'count', 'burst'\]"):
        bmtl.fit(SharedTrunk(Identity()), five, method="nuts", marginal=True)
    with pytest.raises(ValueError, match="numpyro engine"):
        bmtl.fit(SharedTrunk(Identity()), three, method="nuts", engine="pyro", marginal=True)


def test_no_transfer_without_noise(programs) -> None:
    """Noise-free outcomes of all tasks at all rows: a task's prediction does not depend on how tasks are related.

    Bonilla, Chai & Williams, "Multi-task Gaussian process prediction", NIPS 2007, section 2.3.
    """
    rng = np.random.default_rng(4)
    # As many features as rows, so that the outcomes can be met exactly.
    tasks = bmtl.Tasks.from_arrays(rng.normal(size=(6, 5)), rng.normal(size=(6, 2)), ["gaussian"] * 2, names=["a", "b"])
    # A noise of a thousandth of the outcome's unit stands for none.
    model = SharedTrunk(Identity(), Correlated(), noise=Known(1e-3))
    design = Design.of(tasks)
    values = arrays(tasks, design)

    def predictions(rho, drop=()):
        sites = {"amplitude": np.array([1.0, 0.7]), "head_correlation": np.array([[1, 0], [rho, np.sqrt(1 - rho**2)]])}
        masked = {**values, "mask/gaussian": values["mask/gaussian"].copy()}
        masked["mask/gaussian"][drop] = False
        _, mode, _ = Marginal(model, design, masked).evidence(Replay(sites))
        relation = model.relation.gaussian(
            Replay(sites), design.plan(model.arranged(tasks.names)), design, 5, model.amplitude
        )
        beta = relation.loc + np.einsum("tqm,m->tq", relation.factor, mode[0])
        new = np.random.default_rng(5).normal(size=(10, 5)) / np.sqrt(5)
        return np.asarray(beta[0, 0] + new @ np.asarray(beta[0, 1:]))

    alone = predictions(0.0)
    np.testing.assert_allclose(predictions(0.9), alone, atol=2e-3)
    np.testing.assert_allclose(predictions(-0.6), alone, atol=2e-3)
    # With outcomes of the first task missing the other does help.
    some = (0, slice(2, None))
    assert np.max(np.abs(predictions(0.9, some) - predictions(0.0, some))) > 0.1


@pytest.mark.parametrize("m", [1, 2, 3, UNROLLED, UNROLLED + 1])
def test_small_matrices_are_factored_alike(m, rng) -> None:
    """Entry by entry or by LAPACK: factor, both solutions, and the gradient."""
    A, b = rng.normal(size=(4, m, m)), rng.normal(size=(4, m)).astype(np.float32)
    K = (A @ np.swapaxes(A, 1, 2) + m * np.eye(m)).astype(np.float32)
    tril = np.linalg.cholesky(K.astype(float))
    np.testing.assert_allclose(cholesky(K), tril, rtol=1e-4, atol=1e-5)
    for transposed, factor in ((False, tril), (True, np.swapaxes(tril, 1, 2))):
        exact = np.linalg.solve(factor, b[..., None])[..., 0]
        np.testing.assert_allclose(solve(cholesky(K), b, transposed), exact, rtol=1e-3, atol=1e-4)
    slope = jax.grad(lambda K: jax.numpy.log(jax.numpy.diagonal(cholesky(K), axis1=-2, axis2=-1)).sum())(K)
    # That of ½ log det K, of which Cholesky reads the lower triangle.
    inverse = np.linalg.inv(K.astype(float))
    exact = 0.5 * (inverse if m > UNROLLED else np.tril(2 * inverse) - inverse * np.eye(m))
    np.testing.assert_allclose(slope, exact, rtol=1e-3, atol=1e-4)
