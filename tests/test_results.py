"""What a fit gives back: ELPDs that do not depend on units or order, weights, predictions, the ArviZ tree."""

from __future__ import annotations

import arviz_stats
import numpy as np
import pandas as pd
import polars as pl
import pytest
from arviz_base import from_dict
from arviz_stats.base import array_stats
from scipy.special import logsumexp

import bmtl
from bmtl import replay, results
from bmtl.diagnostics import convergence, psis_loo
from bmtl.diagnostics import loo as loo_module
from bmtl.fitting import MAP, NUTS, SVI
from bmtl.models import Decoupled, SharedTrunk
from bmtl.noise import Common, Known
from bmtl.tasks import Tasks
from bmtl.trunks import MLP, Identity

MODEL = SharedTrunk(Identity())
# Amplitude times coefficient has a funnel at zero: small steps keep the sampler from diverging there.
CAREFUL = {"method": "nuts", "target_accept": 0.99}
NUTS_OPTIONS = {**CAREFUL, "chains": 8, "warmup": 500, "draws": 2000, "seed": 1}


@pytest.fixture(scope="module")
def sampled(pair):
    return bmtl.fit(MODEL, pair, **NUTS_OPTIONS)


@pytest.fixture(scope="module")
def drawn(five, made):
    """All five families, draws that nobody fitted."""
    return made(SharedTrunk(MLP((3,))), five, NUTS(chains=2, draws=50))


def outcomes(tasks: Tasks) -> np.ndarray:
    Y = np.full((tasks.n_rows, tasks.n_tasks), np.nan)
    for t, rows in enumerate(tasks.rows):
        Y[rows, t] = tasks.y[t]
    return Y


def elpds(fit) -> tuple[dict[str, float], dict[str, float]]:
    """ELPD of each task and its Monte Carlo error, from the scatter of the ELPDs of single chains."""
    assert fit.converged
    found, error = {}, {}
    for name, own in zip(fit.tasks.names, fit.log_likelihood, strict=True):
        likelihood = np.exp(own.astype(float))
        ess = array_stats.ess(likelihood, chain_axis=0, draw_axis=1, method="mean")
        assert np.min(ess) > 400
        chains = [psis_loo(chain[None], fit.draws).elpd for chain in own]
        found[name] = fit.loo[name].elpd
        error[name] = float(np.std(chains, ddof=1) / np.sqrt(len(chains)))
        assert error[name] < 0.1
    return found, error


def assert_same_elpds(fit, other, shift=None) -> None:
    (ours, e), (theirs, f) = elpds(fit), elpds(other)
    for name in ours:
        moved = (shift or {}).get(name, 0.0)
        assert abs(ours[name] + moved - theirs[name]) < 5 * np.hypot(e[name], f[name])


def test_reordered_tasks_have_the_same_elpd(pair, sampled) -> None:
    other = bmtl.fit(MODEL, pair.select(["v", "u"]), **NUTS_OPTIONS)
    assert other.tasks.names == ("v", "u")
    assert_same_elpds(sampled, other)


def test_permuted_rows_have_the_same_elpd(pair, sampled) -> None:
    order = np.random.default_rng(0).permutation(pair.n_rows)
    moved = Tasks.from_arrays(pair.X[order], outcomes(pair)[order], pair.families, names=pair.names)
    other = bmtl.fit(MODEL, moved, **NUTS_OPTIONS)
    assert_same_elpds(sampled, other)
    # Cell by cell too: each outcome keeps its own density.
    for name in pair.names:
        difference = sampled.loo[name].pointwise[order] - other.loo[name].pointwise
        assert np.max(np.abs(difference)) < 0.2


@pytest.mark.slow
def test_renamed_tasks_have_the_same_elpd(pair, sampled) -> None:
    renamed = Tasks.from_arrays(pair.X, outcomes(pair), pair.families, names=["z", "y"])
    other = bmtl.fit(MODEL, renamed, **NUTS_OPTIONS)
    ours, errors = elpds(sampled)
    theirs, others = elpds(other)
    for a, b in [("u", "z"), ("v", "y")]:
        assert abs(ours[a] - theirs[b]) < 5 * np.hypot(errors[a], others[b])


def test_rescaled_task_shifts_by_the_jacobian(pair, sampled) -> None:
    """In other units a density is divided by the unit: elpd moves by −n log c, noise by c, and nothing else does."""
    # A power of two leaves every standardised outcome the same to the last bit, and so every draw.
    scaled = Tasks.from_arrays(pair.X, outcomes(pair) * [8.0, 1.0], pair.families, names=pair.names)
    other = bmtl.fit(MODEL, scaled, **NUTS_OPTIONS)
    for name, value in sampled.draws.sites.items():
        np.testing.assert_array_equal(value, other.draws.sites[name])
    np.testing.assert_allclose(sampled.loo["u"].elpd - 40 * np.log(8), other.loo["u"].elpd, atol=1e-3)
    np.testing.assert_allclose(sampled.loo["v"].elpd, other.loo["v"].elpd, atol=1e-3)
    np.testing.assert_allclose(sampled.noise["u"] * 8, other.noise["u"], rtol=1e-6)
    np.testing.assert_allclose(sampled.weights()["weight"], other.weights()["weight"] * [64, 1], rtol=1e-4)


@pytest.mark.slow
def test_rescaled_and_shifted_by_any_constant(pair, sampled) -> None:
    scaled = Tasks.from_arrays(pair.X, outcomes(pair) * [1.0, 0.003] + [0.0, 5.0], pair.families, names=pair.names)
    other = bmtl.fit(MODEL, scaled, **NUTS_OPTIONS)
    assert_same_elpds(sampled, other, shift={"v": -40 * np.log(0.003)})


# Of 40 cells one may be hard to leave out; both sides are then as uncertain, and alike.
HARD_CELLS = pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto distribution")


@HARD_CELLS
def test_cells_of_all_tasks_sum_to_the_joint(sampled, monkeypatch) -> None:
    """One LOO over all cells of all tasks gives, cell by cell, what the tasks give one by one."""
    monkeypatch.setattr(loo_module, "_efficiency", lambda log_likelihood: 1.0)
    alone = [psis_loo(own, sampled.draws) for own in sampled.log_likelihood]
    joined = np.concatenate(sampled.log_likelihood, axis=-1)
    tree = from_dict({"log_likelihood": {"all": joined}}, dims={"all": ["cell"]})
    joint = arviz_stats.loo(tree, var_name="all", reff=1.0, pointwise=True)
    np.testing.assert_allclose(np.concatenate([own.pointwise for own in alone]), joint.elpd_i, atol=2e-3)
    assert sum(own.elpd for own in alone) == pytest.approx(float(joint.elpd), abs=0.02)


@HARD_CELLS
def test_arviz_gives_the_same_loo_from_the_tree(sampled) -> None:
    table = sampled.elpd().set_index("task")
    assert table["converged"].all() and table["n"].tolist() == [40, 40]
    for name in ("u", "v"):
        found = arviz_stats.loo(sampled.data, var_name=name)
        assert found.elpd == pytest.approx(table.loc[name, "elpd"], abs=0.05)
        assert found.se == pytest.approx(table.loc[name, "se"], abs=0.05)
    summary = arviz_stats.summary(sampled.data, var_names=["noise"])
    means = summary["mean"].astype(float).to_numpy()
    np.testing.assert_allclose(means, [sampled.noise[name].mean() for name in ("u", "v")], rtol=0.05)


def test_tree(drawn, five) -> None:
    tree = drawn.data
    assert set(tree.children) == {
        "posterior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data", "sample_stats",
    }
    for t, name in enumerate(five.names):
        assert tree["log_likelihood"][name].dims == ("chain", "draw", f"obs_{name}")
        np.testing.assert_array_equal(tree["log_likelihood"][f"obs_{name}"], five.rows[t])
        np.testing.assert_array_equal(tree["observed_data"][name], five.y[t])
        replicated = tree["posterior_predictive"][name].values
        assert five.families[t].valid(replicated).all()
        kind = "f" if five.families[t].name in ("gaussian", "student_t") else "i"
        assert replicated.dtype.kind == tree["observed_data"][name].dtype.kind == kind
    assert list(tree["posterior"]["noise"].coords["noise_task"].values) == ["size", "tail", "burst"]
    np.testing.assert_array_equal(tree["constant_data"]["inputs"], five.X)


def test_replicates_follow_their_family(drawn, five) -> None:
    """Mean and spread of replicated Gaussian outcomes about each draw's own predictor and noise."""
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in drawn.draws.sites.items()}
    eta = replay.linear_predictor(drawn.model, five, flat)[0] * five.y_scale[0] + five.y_centre[0]
    z = drawn.data["posterior_predictive"]["size"].values.reshape(eta.shape) - eta
    z = z / drawn.noise["size"].reshape(-1, 1)
    assert abs(z.mean()) < 5 / np.sqrt(z.size) and abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)


def test_weights(drawn, five) -> None:
    table = drawn.weights(prob=0.5).set_index("task")
    np.testing.assert_allclose(table.loc["size", "noise"], drawn.noise["size"].mean(), rtol=1e-5)
    np.testing.assert_allclose(table.loc["size", "weight"], np.mean(drawn.noise["size"] ** -2.0), rtol=1e-3)
    np.testing.assert_allclose(table.loc["tail", "weight"], 5 / 7 * np.mean(drawn.noise["tail"] ** -2.0), rtol=1e-3)
    low, high = np.quantile(drawn.noise["tail"], [0.25, 0.75])
    np.testing.assert_allclose(table.loc["tail", ["noise_low", "noise_high"]].astype(float), [low, high], rtol=1e-5)
    assert table["noise"].isna().tolist() == [False, False, True, True, False]
    assert 0 < table.loc["any", "weight"] <= 0.25
    assert (table["weight_low"] <= table["weight_high"]).all() and (table["weight"] > 0).all()


def test_known_noise_is_reported_as_given(pair, made) -> None:
    fit = made(SharedTrunk(Identity(), noise=Known(3.0)), pair, SVI(draws=30))
    table = fit.weights()
    np.testing.assert_allclose(table[["noise", "noise_low", "noise_high"]], 3.0)
    np.testing.assert_allclose(table["weight"], 1 / 9, rtol=1e-5)


def test_predictions_lie_on_each_outcomes_scale(drawn, five) -> None:
    found = drawn.predict(five.X[:6], seed=4)
    for t, name in enumerate(five.names):
        mean, new = found["mean"][name], found["predictions"][name]
        assert mean.dims == new.dims == ("chain", "draw", "row") and mean.shape == (2, 50, 6)
        assert five.families[t].valid(new.values).all()
    assert np.all((found["mean"]["any"] >= 0) & (found["mean"]["any"] <= 1))
    # Where the task was observed, the mean in the user's units is the predictor taken back by hand.
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in drawn.draws.sites.items()}
    eta = replay.linear_predictor(drawn.model, five, flat)[0] * five.y_scale[0] + five.y_centre[0]
    at = five.rows[0] < 6
    np.testing.assert_allclose(
        found["mean"]["size"].values.reshape(100, 6)[:, five.rows[0][at]], eta[:, at], rtol=1e-3, atol=1e-3
    )


def test_expected_counts_scale_with_exposure(drawn, five) -> None:
    one, three = (drawn.predict(five.X[:5], exposure=e)["mean"] for e in (1.0, np.array([3.0, 3.0, 1.0, 3.0, 0.5])))
    factor = np.array([3.0, 3.0, 1.0, 3.0, 0.5])
    for name in ("count", "burst"):
        np.testing.assert_allclose(three[name], one[name] * factor, rtol=1e-5)
    for name in ("size", "tail", "any"):
        np.testing.assert_array_equal(three[name], one[name])


def test_predictions_of_the_long_layout(grouped, made) -> None:
    """Every group is predicted at every new row."""
    tasks = grouped("poisson")
    found = made(SharedTrunk(Identity()), tasks, SVI(draws=30)).predict(np.zeros((4, 2)), exposure=2.0)
    assert set(found["mean"].data_vars) == {"u", "v", "w"} and found["mean"]["u"].shape == (1, 30, 4)


def test_predictions_have_their_own_seed(drawn, five) -> None:
    first, again, other = (drawn.predict(five.X[:5], seed=seed)["predictions"]["size"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def framed(made):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(50, 9, 20), "sex": ["f", "m"] * 10, "y": rng.normal(size=20)})
    return made(MODEL, Tasks.from_frame(frame, ["age", "sex"], {"y": "gaussian"}), SVI(draws=30)), frame


def test_any_frame_or_array_gives_the_same(made) -> None:
    fit, frame = framed(made)
    expected = fit.predict(frame[["age", "sex"]])["mean"]["y"]
    matrix = np.column_stack([frame["age"], frame["sex"] == "m"]).astype(float)
    for new in (pl.DataFrame(frame.to_dict("list")), frame[["sex", "age"]], matrix, matrix.tolist()):
        np.testing.assert_allclose(fit.predict(new)["mean"]["y"], expected, rtol=1e-6)


def test_wrong_inputs_are_refused(made) -> None:
    fit, frame = framed(made)
    wrong = [
        frame[["age"]], frame.assign(sex="x"), frame.assign(age=np.nan), np.zeros((3, 5)),
        frame.rename(columns={"age": "years"}), pl.DataFrame({"sex": ["f"], "y": [1.0]}),
    ]
    for new in wrong:
        with pytest.raises(bmtl.TaskError):
            fit.predict(new)


def test_repr_and_summary(drawn) -> None:
    text = repr(drawn)
    for word in ("SharedTrunk", "nuts", "numpyro on cpu", "2 × 50", "size", "burst", "NO: "):
        assert word in text
    assert drawn.summary()["draws"] == "2 × 50"


def test_map_has_no_elpd(five, made) -> None:
    fit = made(Decoupled(Identity()), five, MAP())
    for ask in (fit.elpd, lambda: fit.loo):
        with pytest.raises(bmtl.FitError, match="a MAP fit has no posterior draws to compute LOO from"):
            ask()
    assert len(fit.weights()) == 5 and fit.predict(five.X[:2])["mean"]["size"].shape == (1, 1, 2)


@pytest.fixture(scope="module")
def gal() -> Tasks:
    """The two outputs of Kendall, Gal & Cipolla's example: one input, noises 10 and 1."""
    N = 100
    np.random.seed(0)  # noqa: NPY002 - the published example's own numbers
    X = np.random.randn(N, 1)  # noqa: NPY002
    Y1 = 2.0 * X + 8.0 + 1e1 * np.random.randn(N, 1)  # noqa: NPY002
    Y2 = 3.0 * X + 3.0 + 1e0 * np.random.randn(N, 1)  # noqa: NPY002
    return Tasks.from_arrays(X, np.hstack([Y1, Y2]), ["gaussian", "gaussian"])


def assert_covers(fit) -> None:
    assert fit.converged
    table = fit.weights(prob=0.89)
    assert (table["noise_low"] < [10.0, 1.0]).all() and (table["noise_high"] > [10.0, 1.0]).all()
    # An interval that covers by being wide proves nothing: its width is near that of 100 Gaussian residuals.
    width = (table["noise_high"] - table["noise_low"]) / table["noise"]
    np.testing.assert_allclose(width, 2 * 1.6 / np.sqrt(2 * 98), rtol=0.25)


@pytest.mark.parametrize(
    ("trunk", "options"),
    [
        (Identity(), {**CAREFUL, "warmup": 500, "draws": 500}),
        (Identity(), {"method": "svi", "restarts": 1}),
        (MLP(), {"method": "svi"}),
    ],
    ids=["identity nuts", "identity svi", "mlp svi"],
)
def test_gals_two_noises(trunk, options, gal) -> None:
    assert_covers(bmtl.fit(SharedTrunk(trunk), gal, **options))


def test_loo_of_many_cells_is_read_from_a_sample(made, five, monkeypatch) -> None:
    model = SharedTrunk(Identity())
    whole = made(model, five, SVI(draws=100)).loo
    every = replay.log_predictive(model, five, made(model, five, SVI(draws=100)).flat)
    monkeypatch.setattr("bmtl.results.LARGE", 18)
    monkeypatch.setattr("bmtl.results.SAMPLE", 12)
    fit = made(model, five, SVI(draws=100))
    rng = np.random.default_rng([fit.seed, 3])
    for t, name in enumerate(five.names):
        found, n = fit.loo[name], five.n_cells[t]
        if n <= 18:
            np.testing.assert_allclose(found.pointwise, whole[name].pointwise, rtol=1e-3)
            continue
        cells = np.sort(rng.choice(n, 12, replace=False))
        gap = whole[name].pointwise[cells] - every[t][cells]
        np.testing.assert_allclose(found.pareto_k, whole[name].pareto_k[cells], rtol=1e-3)
        np.testing.assert_allclose(found.pointwise, every[t] + gap.mean(), rtol=1e-3, atol=1e-3)
    assert fit.elpd()["n"].tolist() == list(five.n_cells)
    assert min(five.n_cells) <= 18 < max(five.n_cells)


def test_very_large_trees_have_no_log_likelihood(made, five, monkeypatch) -> None:
    monkeypatch.setattr("bmtl.trees.LIKELIHOOD_CELLS", 10)
    fit = made(SharedTrunk(Identity()), five, SVI(draws=5))
    assert "log_likelihood" not in fit.data.children
    assert "posterior" in fit.data.children


def test_densities_and_weights_do_not_depend_on_how_many_draws_are_read_at_a_time(made, five, monkeypatch) -> None:
    model = SharedTrunk(Identity())
    fit = made(model, five, SVI(draws=30))
    whole = replay.log_predictive(model, five, fit.flat)
    table = fit.weights()
    for t, own in enumerate(replay.log_likelihood(model, five, fit.flat)):
        np.testing.assert_allclose(whole[t], logsumexp(own.astype(float), axis=0) - np.log(30), rtol=1e-5)
    for t, own in enumerate(replay.fisher_information(model, five, fit.flat)):
        assert table["weight"][t] == pytest.approx(own.mean(axis=1).mean(), rel=1e-4)
    monkeypatch.setattr(replay, "CELLS_AT_ONCE", 7 * five.n_tasks * five.n_rows)
    for ours, theirs in zip(replay.log_predictive(model, five, fit.flat), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    pd.testing.assert_frame_equal(fit.weights(), table, rtol=1e-5)


def test_of_many_tasks_fewer_cells_are_checked(grouped, made, monkeypatch) -> None:
    """No task is left out, and a noise that all have in common is checked once."""
    fit = made(SharedTrunk(Identity(), noise=Common()), grouped("gaussian"), NUTS(chains=2, draws=30))
    seen = {}

    def counted(draws, quantities):
        seen.update(quantities)
        return convergence.checks(draws, quantities)

    monkeypatch.setattr(results, "checks", counted)
    monkeypatch.setattr(results, "CHECKED_IN_ALL", 7)
    assert len(fit.checks)
    a, *others = fit.tasks.names
    assert list(seen) == [f"noise of {a}", *(f"linear predictor of {name}" for name in (a, *others))]
    assert [value.shape for value in seen.values()] == [(2, 30), *[(2, 30, 2)] * 3]
