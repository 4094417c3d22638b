"""Clustered heads: partitions, density and draws against the Dirichlet process, and which tasks are put together."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pyro
import pytest
import torch
from numpyro.handlers import seed, trace
from scipy import stats

import bmtl
from bmtl.arrangement import Arrangement
from bmtl.data import Design
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.engine.pyro import PyroEngine
from bmtl.models import SharedTrunk
from bmtl.noise import HalfNormal
from bmtl.relations import Clustered
from bmtl.relations.clustered import partitions
from bmtl.trunks import Identity

BELL = [1, 1, 2, 5, 15, 52, 203, 877, 4140]


@pytest.mark.parametrize("heads", range(1, 9))
def test_partitions_are_all_there_are(heads) -> None:
    found = partitions(heads, heads, 1.7)
    assert len({tuple(own) for own in found.labels}) == len(found.labels) == BELL[heads]
    two = partitions(heads, min(2, heads), 1.0)
    assert len(two.labels) == 2 ** (heads - 1)
    # Each partition's clusters are subsets that hold every head once.
    member = found.subsets[found.clusters]
    np.testing.assert_array_equal(member.sum(axis=1), 1.0)
    same = np.einsum("bch,bcg->bhg", member, member) > 0
    np.testing.assert_array_equal(same, found.labels[:, :, None] == found.labels[:, None, :])


def restaurant(rng, heads: int, concentration: float, draws: int) -> np.ndarray:
    """Labels by the Chinese restaurant process, one head after the other."""
    labels = np.zeros((draws, heads), dtype=int)
    for h in range(1, heads):
        counts = np.sum(labels[:, :h, None] == np.arange(h + 1), axis=1).astype(float)
        counts[np.arange(draws), labels[:, :h].max(axis=1) + 1] = concentration
        upper = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
        labels[:, h] = np.sum(rng.uniform(size=(draws, 1)) > upper, axis=1)
    return labels


@pytest.mark.parametrize("concentration", [0.5, 2.0])
def test_partitions_have_the_probabilities_of_the_process(concentration) -> None:
    found = partitions(4, 4, concentration)
    labels = restaurant(np.random.default_rng(0), 4, concentration, 20_000)
    counts = np.sum(np.all(labels[:, None] == found.labels, axis=-1), axis=0)
    assert stats.chisquare(counts, 20_000 * np.exp(found.log_prior)).pvalue > 1e-3


def on_numpyro(relation, plan, design, k, draws):
    def one(key):
        with seed(rng_seed=key):
            return relation.sample(NumPyroEngine(), plan, design, k, HalfNormal()).w

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.PRNGKey(0), draws)), dtype=float)


def on_pyro(relation, plan, design, k, draws):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return np.stack([
            relation.sample(PyroEngine(), plan, design, k, HalfNormal()).w.numpy() for _ in range(draws)
        ]).astype(float)


@pytest.mark.parametrize(("sampler", "draws"), [(on_numpyro, 20_000), (on_pyro, 2000)])
def test_prior_is_the_stated_one(sampler, draws, five) -> None:
    """Two-sample tests against the docstring's formula in numpy: a coefficient, and inner products of heads."""
    k, design = 4, Design.of(five)
    w = sampler(Clustered(concentration=1.5), design.plan(Arrangement.shared(five.names)), design, k, draws)
    rng = np.random.default_rng(1)
    label = restaurant(rng, 5, 1.5, draws)
    s = rng.beta(2, 8, size=(draws, 1, 1))
    mean = np.take_along_axis(rng.normal(size=(draws, 5, k)), label[..., None], axis=1)
    direct = np.sqrt(1 - s) * mean + np.sqrt(s) * rng.normal(size=(draws, 5, k))
    for statistic in (lambda w: w[:, 2, 1], lambda w: np.sum(w[:, 0] * w[:, 4], 1), lambda w: np.sum(w**2, (1, 2))):
        assert stats.ks_2samp(statistic(w), statistic(direct)).pvalue > 1e-3


@pytest.mark.parametrize("clusters", [None, 2])
@pytest.mark.parametrize("heads", [[5], [3, 2]], ids=["one trunk", "two trunks"])
def test_density_is_the_sum_over_partitions(heads, clusters, five) -> None:
    """On both engines, that of a mixture of multivariate normals in float64; leading dimensions are draws."""
    k, design = 3, Design.of(five)
    names = iter(sorted(five.names))
    plan = design.plan(Arrangement(tuple(tuple((next(names),) for _ in range(n)) for n in heads)))
    relation = Clustered(clusters, 0.7)
    program = partial(relation.sample, plan=plan, design=design, k=k, amplitude=HalfNormal())
    with trace() as on_numpyro, seed(rng_seed=0):
        program(NumPyroEngine())
    within = np.array(on_numpyro["head_within"]["value"])
    held = pyro.poutine.condition(lambda: program(PyroEngine()), data={"head_within": torch.tensor(within)})
    on_pyro = pyro.poutine.trace(held).get_trace().nodes
    w = np.random.default_rng(0).normal(size=(6, 5, k)).astype(np.float32)
    exact = sum(
        mixture(own, float(within[0]), clusters or 5, 0.7) for own in np.split(w, np.cumsum(heads)[:-1], axis=1)
    )
    np.testing.assert_allclose(on_numpyro["head"]["fn"].log_prob(w), exact, rtol=1e-5)
    np.testing.assert_allclose(on_pyro["head"]["fn"].log_prob(torch.tensor(w)), exact, rtol=1e-5)


def mixture(w: np.ndarray, s: float, most: int, concentration: float) -> np.ndarray:
    """Log density of the heads of one trunk, ``draws × heads × k``, partition by partition."""
    heads = w.shape[1]
    known = partitions(heads, min(most, heads), concentration)
    columns = np.swapaxes(w, 1, 2).astype(float)
    each = [
        stats.multivariate_normal(cov=(1 - s) * (own[:, None] == own) + s * np.eye(heads)).logpdf(columns).sum(axis=-1)
        for own in known.labels
    ]
    return np.logaddexp.reduce(known.log_prior[:, None] + each)


def test_together_is_the_probability_given_the_heads(five) -> None:
    """By enumeration, for tasks that share a head too."""
    plan = Design.of(five).plan(Arrangement(((("any",), ("burst", "size"), ("count",), ("tail",)),)))
    rng = np.random.default_rng(0)
    sites = {"head": 0.7 * rng.normal(size=(3, 4, 2)), "head_within": rng.beta(2, 8, size=(3, 1))}
    found = Clustered(concentration=2.0).pairs(sites, plan)["together"]
    known = partitions(4, 4, 2.0)
    for draw, (w, s) in enumerate(zip(sites["head"], sites["head_within"][:, 0], strict=True)):
        density = [stats.multivariate_normal(cov=(1 - s) * (own[:, None] == own) + s * np.eye(4)).pdf(w.T).prod()
                   for own in known.labels]
        p = np.exp(known.log_prior) * density
        heads = np.einsum("b,bij->ij", p / p.sum(), known.labels[:, :, None] == known.labels[:, None])
        order = plan.head_of
        np.testing.assert_allclose(found[draw], heads[np.ix_(order, order)], atol=1e-4)
    apart = Design.of(five).plan(Arrangement(((("any",), ("burst", "size")), (("count",), ("tail",)))))
    trunk = apart.trunk_of_head[apart.head_of]
    zero = Clustered(concentration=2.0).pairs(sites, apart)["together"][:, trunk[:, None] != trunk]
    np.testing.assert_array_equal(zero, 0.0)
    size, burst = five.names.index("size"), five.names.index("burst")
    np.testing.assert_allclose(found[:, size, burst], 1.0, atol=1e-6)


@pytest.mark.slow
def test_puts_tasks_together_that_belong_together() -> None:
    """Two groups of three tasks, drawn from the model."""
    rng = np.random.default_rng(0)
    group = np.arange(6) % 2
    W = np.sqrt(0.9) * rng.normal(size=(2, 8))[group] + np.sqrt(0.1) * rng.normal(size=(6, 8))
    X = rng.normal(size=(80, 8))
    Y = X @ (rng.uniform(0.7, 1.5, (6, 1)) * W / np.sqrt(8)).T + 0.7 * rng.normal(size=(80, 6))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 6)
    model = SharedTrunk(Identity(), Clustered())
    fit = bmtl.fit(model, tasks, method="nuts", seed=0, warmup=500, draws=500, target_accept=0.95)
    assert fit.draws.stats["diverging"].sum() == 0
    assert fit.converged
    table = fit.relations()
    number = {name: t for t, name in enumerate(tasks.names)}
    same = np.array([group[number[a]] == group[number[b]] for a, b in zip(table.task_a, table.task_b, strict=True)])
    assert np.all(table["together"][same] > 0.8) and np.all(table["together"][~same] < 0.2)
    assert np.all(table["correlation"][same] > 0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "Clustered needs clusters ≥ 1, got 0"),
        ({"concentration": 0.0}, "Clustered needs a finite concentration > 0, got 0.0"),
        ({"concentration": float("nan")}, "Clustered needs a finite concentration > 0, got nan"),
    ],
)
def test_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Clustered(**options)


def test_too_many_partitions_are_refused() -> None:
    with pytest.raises(ValueError, match="of 10 heads into at most 10 clusters there are more than 25000"):
        partitions(10, 10, 1.0)
    assert len(partitions(15, 2, 1.0).labels) == 2**14
