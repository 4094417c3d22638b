"""Clustered heads, exactly and around centres: density and draws against the Dirichlet process, who is put together."""

from __future__ import annotations

import warnings
from functools import partial

import jax
import numpy as np
import pyro
import pytest
import torch
from arviz_stats.base import array_stats
from numpyro.handlers import seed, substitute, trace
from scipy import stats

import bmtl
from bmtl.arrangement import Arrangement
from bmtl.data import Design
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.engine.pyro import PyroEngine
from bmtl.engine.score import Score
from bmtl.models import SharedTrunk
from bmtl.noise import HalfNormal
from bmtl.relations import Clustered
from bmtl.relations._centres import TRUNCATION_ERROR, truncation
from bmtl.relations._partitions import number, partitions
from bmtl.trunks import Identity

BELL = [1, 1, 2, 5, 15, 52, 203, 877, 4140]


@pytest.mark.parametrize("heads", range(1, 9))
def test_partitions_are_all_there_are(heads) -> None:
    found = partitions(heads, heads, 1.7)
    assert len({tuple(own) for own in found.labels}) == len(found.labels) == BELL[heads] == number(heads, heads)
    two = partitions(heads, min(2, heads), 1.0)
    assert len(two.labels) == 2 ** (heads - 1) == number(heads, 2)
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


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("sampler", "draws"), [(on_numpyro, 20_000), (on_pyro, 2000)])
def test_prior_is_the_stated_one(sampler, draws, exact, five) -> None:
    """Two-sample tests against the docstring's formula in numpy: a coefficient, and inner products of heads."""
    k, design = 4, Design.of(five)
    relation = Clustered(concentration=1.5, exact=exact)
    w = sampler(relation, design.plan(Arrangement.shared(five.names)), design, k, draws)
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


THREE_AND_ONE = Arrangement(((("any",), ("burst", "size"), ("count",)), (("tail",),)))
"""Four heads, the last one on a trunk of its own."""


def centres_and_heads(draws: int, clusters: int, k: int) -> dict[str, np.ndarray]:
    """Sites of those heads, near enough to several centres that the clusters of some are in doubt."""
    rng = np.random.default_rng(0)
    return {
        "head_centre": rng.normal(size=(draws, 2, clusters, k)),
        "head_stick": rng.exponential(size=(draws, 2, clusters - 1)),
        "head_within": rng.uniform(0.1, 0.4, size=(draws, 1)),
        "head": rng.normal(size=(draws, 4, k)),
    }


def density_with_labels(sites: dict[str, np.ndarray], draw: int) -> np.ndarray:
    """Share of each cluster of a head's trunk times the head's density in it, ``heads × clusters``."""
    own = {name: np.asarray(value[draw], dtype=float) for name, value in sites.items()}
    s, k, found = own["head_within"][0], own["head"].shape[-1], []
    for head, trunk in zip(own["head"], [0, 0, 0, 1], strict=True):
        v = np.append(1.0 - np.exp(-own["head_stick"][trunk]), 1.0)
        share = v * np.cumprod(np.append(1.0, 1.0 - v[:-1]))
        means = np.sqrt(1.0 - s) * own["head_centre"][trunk]
        found.append(share * [stats.multivariate_normal.pdf(head, mean, s * np.eye(k)) for mean in means])
    return np.array(found)


def test_density_around_centres_is_the_mixture(five) -> None:
    """On NumPyro draw by draw, on torch with runs side by side."""
    k, design = 3, Design.of(five)
    sites = {name: own.astype(np.float32) for name, own in centres_and_heads(5, 4, k).items()}
    exact = [np.log(density_with_labels(sites, draw).sum(axis=1)).sum() for draw in range(5)]
    plan = design.plan(THREE_AND_ONE)
    program = partial(Clustered(4, exact=False).sample, plan=plan, design=design, k=k, amplitude=HalfNormal())
    for draw in range(5):
        with trace() as found, seed(rng_seed=0), substitute(data={name: own[draw] for name, own in sites.items()}):
            program(NumPyroEngine())
        np.testing.assert_allclose(found["head"]["fn"].log_prob(sites["head"][draw]), exact[draw], rtol=1e-5)
    others = {name: torch.ones(5, design.n_tasks) for name in ("amplitude", "intercept")}
    tensors = {name: torch.tensor(own) for name, own in sites.items()}
    score = Score()
    score(program, tensors | others, torch.Size([5]))
    np.testing.assert_allclose(score.sites["head"].log_prob(tensors["head"]), exact, rtol=1e-5)


def test_together_around_centres_is_the_chance_of_one_label(five) -> None:
    """By enumeration of the labels of two heads, whatever the order of the clusters; none between trunks."""
    plan, relation = Design.of(five).plan(THREE_AND_ONE), Clustered(3, exact=False)
    sites = centres_and_heads(4, 3, 2)
    found = relation.pairs(sites, plan)["together"]
    for draw in range(4):
        p = density_with_labels(sites, draw)
        p /= p.sum(axis=1, keepdims=True)
        heads = p @ p.T
        heads[3, :3] = heads[:3, 3] = 0.0
        np.fill_diagonal(heads, 1.0)
        np.testing.assert_allclose(found[draw], heads[np.ix_(plan.head_of, plan.head_of)], atol=1e-5)
    assert np.any((found > 0.1) & (found < 0.9))
    # Clusters of equal shares may trade places.
    even = sites | {"head_stick": np.broadcast_to(np.log([1.5, 2.0]), (4, 2, 2))}
    other = even | {"head_centre": sites["head_centre"][:, :, [2, 0, 1]]}
    ours, theirs = (relation.pairs(own, plan)["together"] for own in (even, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.allclose(ours, found, atol=1e-2)


@pytest.mark.parametrize("concentration", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("heads", [10, 200])
def test_truncation_keeps_to_the_bound(heads, concentration) -> None:
    """Theorem 2 of Ishwaran & James by simulation: what all but the last share leave is exp(−a gamma number)."""
    rng = np.random.default_rng(0)

    def distance(clusters: int) -> float:
        left = np.exp(-rng.gamma(clusters - 1, 1.0 / concentration, 200_000))
        return float(-4.0 * np.mean(np.expm1(heads * np.log1p(-left))))

    enough = truncation(heads, concentration)
    assert distance(enough) < TRUNCATION_ERROR < distance(enough // 2)


def sites_of(relation, *heads: int) -> set[str]:
    """Names of the relation's own sites, on trunks with so many heads."""
    names = [f"t{i:02}" for i in range(sum(heads))]
    trunks = np.split(np.array(names)[:, None], np.cumsum(heads)[:-1])
    Y = np.tile(np.arange(3.0)[:, None], len(names))
    design = Design.of(bmtl.Tasks.from_arrays(Y[:, :1], Y, ["poisson"] * len(names), names=names))
    plan = design.plan(Arrangement(tuple(tuple(map(tuple, own.tolist())) for own in trunks)))
    with trace() as found, seed(rng_seed=0):
        relation.sample(NumPyroEngine(), plan, design, 2, HalfNormal())
    return {name for name in found if name.startswith("head_")}


def test_which_way() -> None:
    """Exact as long as the partitions of every trunk are few enough, else around centres; or as told."""
    exact, centres = {"head_within"}, {"head_within", "head_centre", "head_stick"}
    assert sites_of(Clustered(), 9) == sites_of(Clustered(2), 15) == sites_of(Clustered(), 6, 6) == exact
    assert sites_of(Clustered(), 10) == sites_of(Clustered(2), 16) == sites_of(Clustered(), 1, 10) == centres
    assert sites_of(Clustered(exact=False), 3) == centres
    assert sites_of(Clustered(1, exact=False), 12) == sites_of(Clustered(exact=False), 1, 1) == exact
    with pytest.raises(ValueError, match="of 10 heads into at most 10 clusters there are more than 25000"):
        sites_of(Clustered(exact=True), 2, 10)


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


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "options"), [("numpyro", {}), ("pyro", {"restarts": 1, "max_steps": 5000})])
def test_finds_the_clusters_of_many_tasks(engine, options) -> None:
    """Four groups of ten tasks, at right angles to each other."""
    rng = np.random.default_rng(0)
    group = np.arange(40) % 4
    X, centre = rng.normal(size=(200, 4)), 2.0 * np.linalg.qr(rng.normal(size=(4, 4)))[0]
    W = np.sqrt(0.95) * centre[group] + np.sqrt(0.05) * rng.normal(size=(40, 4))
    tasks = bmtl.Tasks.from_arrays(X, X @ W.T / 2.0 + 0.5 * rng.normal(size=(200, 40)), ["gaussian"] * 40)
    with warnings.catch_warnings():
        # Pyro has found them long before its ELBO has settled.
        warnings.simplefilter("ignore" if options else "error", bmtl.ConvergenceWarning)
        fit = bmtl.fit(SharedTrunk(Identity(), Clustered()), tasks, engine=engine, device="cpu", seed=0, **options)
    together = fit.relations()["together"].to_numpy()
    a, b = np.triu_indices(40, 1)
    same = group[a] == group[b]
    assert np.all(together[same] > 0.9) and np.all(together[~same] < 0.1)


@pytest.mark.slow
def test_both_ways_agree() -> None:
    """Five tasks whose clusters are in doubt: the same probabilities, to the Monte Carlo error of two samples."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(25, 3))
    W = rng.normal(size=(2, 3))[[0, 0, 0, 1, 1]] + 0.3 * rng.normal(size=(5, 3))
    tasks = bmtl.Tasks.from_arrays(X, X @ W.T + 2.5 * rng.normal(size=(25, 5)), ["gaussian"] * 5)
    pairs, means, errors = np.triu_indices(5, 1), [], []
    for exact in (True, False):
        relation = Clustered(exact=exact)
        fit = bmtl.fit(
            SharedTrunk(Identity(), relation), tasks, method="nuts", seed=0, warmup=500, draws=1000, target_accept=0.95
        )
        assert fit.converged
        found = relation.pairs(fit.flat, Design.of(tasks).plan(fit.arrangement))["together"][:, *pairs]
        found = found.reshape(*fit.draws.shape, -1)
        ess = array_stats.ess(found, method="mean", chain_axis=0, draw_axis=1)
        assert np.all(ess > 200)
        means.append(found.mean(axis=(0, 1)))
        errors.append(found.std(axis=(0, 1)) / np.sqrt(ess))
    assert np.ptp(means[0]) > 0.1
    # And the truncation: probabilities of what is that far apart differ by half of it.
    assert np.all(np.abs(means[0] - means[1]) < 4.0 * np.hypot(*errors) + TRUNCATION_ERROR / 2)


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
