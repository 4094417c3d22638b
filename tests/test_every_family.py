"""Fits of tasks of the families that `five` has not: read off, saved, predicted, recovered, advised on."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy import special

import bmtl
from bmtl import replay
from bmtl.data import Design
from bmtl.errors import ConvergenceWarning, TaskError
from bmtl.fitting import NUTS
from bmtl.models import SharedTrunk
from bmtl.tasks import Tasks
from bmtl.trunks import Identity

LABELS = ("blue", "green", "red")
NEW = [[0.5, -1.0], [2.0, 0.0], [-1.0, 1.0]]


@pytest.fixture(scope="module")
def fit(made, seven):
    """A fit that nobody fitted, of two chains of four draws."""
    return made(SharedTrunk(Identity()), seven, NUTS(chains=2, draws=4))


def test_predictions_of_labels(fit, seven) -> None:
    """The mean is the probability of each label; new outcomes are codes that say what they are called."""
    found = fit.predict(NEW, exposure={"wins": 5.0, "visits": [0.5, 1.0, 2.0]})
    mean = found["mean"]["colour"]
    assert mean.dims == ("chain", "draw", "row", "category_colour") and mean.shape == (2, 4, 3, 3)
    assert tuple(mean["category_colour"].values) == LABELS
    np.testing.assert_allclose(mean.sum("category_colour"), 1.0, rtol=1e-5)
    levels = seven.families[seven.index("grade")].labels
    assert tuple(found["mean"]["category_grade"].values) == levels == ("0", "1", "2", "3")
    for name, labels in (("colour", LABELS), ("grade", levels)):
        drawn = found["predictions"][name]
        assert drawn.dims == ("chain", "draw", "row") and tuple(drawn.attrs["labels"]) == labels
        assert set(np.unique(drawn)) <= set(range(len(labels)))
    assert found["predictions"]["wins"].max() <= 5 and found["mean"]["income"].dims == ("chain", "draw", "row")


def test_probabilities_are_the_softmax_and_the_differences_of_logistics(fit, seven) -> None:
    """Written out from the draws, at one new row."""
    sites = {name: value[1, 2].astype(float) for name, value in fit.draws.sites.items()}
    z = seven.standardise(np.array(NEW[:1]))[0]
    plan = Design.of(seven).plan(fit.arrangement)
    f = sites["head"][plan.head_of] @ z / np.sqrt(2.0)
    a, c = sites["amplitude"], sites["intercept"]
    colour, grade = seven.index("colour"), seven.index("grade")
    found = fit.predict(NEW)["mean"].isel(chain=1, draw=2, row=0)
    eta = (c + a[plan.task_of] * f)[plan.task_of == colour]
    np.testing.assert_allclose(found["colour"], special.softmax(eta / sites["noise_categorical"][0]), rtol=1e-4)
    cuts = np.append(0.0, np.cumsum(sites["noise_ordinal"][0]))
    below = special.expit(cuts - (c + a[plan.task_of] * f)[plan.task_of == grade])
    np.testing.assert_allclose(found["grade"], np.diff(below, prepend=0.0, append=1.0), rtol=1e-3)


def test_weights_and_noise(fit, seven) -> None:
    table = fit.weights().set_index("task")
    assert np.all(np.isfinite(table["weight"])) and np.all(table["weight"] > 0)
    assert set(table.index[table["noise"].isna()]) == {"wins", "grade"}
    assert fit.noise["grade"].shape == (2, 4, 2) and fit.noise["colour"].shape == (2, 4)
    assert "wins" not in fit.noise and np.all((fit.noise["visits"] > 0) & (fit.noise["visits"] < 1))
    assert "grade" in repr(fit)
    # Written out for the categorical task: the mean of p (1 − p) over categories, over the temperature². As products of
    # two probabilities, because 1 − p has no digits left where single precision holds a p close to 1.
    t = seven.index("colour")
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in fit.draws.sites.items()}
    p = np.exp(replay.linear_predictor(fit.model, seven, flat)[t].astype(float))
    products = p[..., 0] * p[..., 1] + p[..., 0] * p[..., 2] + p[..., 1] * p[..., 2]
    expected = 2 / 3 * products / fit.noise["colour"].reshape(-1, 1) ** 2
    np.testing.assert_allclose(replay.fisher_information(fit.model, seven, flat)[t], expected, rtol=1e-3)


def test_tree_names_everything(fit, seven) -> None:
    tree = fit.data
    assert tree["posterior"]["intercept"].dims == ("chain", "draw", "predictor")
    categories = [f"colour[{label}]" for label in LABELS]
    expected = ["income", "cost", "share", "wins", *categories, "grade", "visits"]
    assert list(tree["posterior"]["predictor"].values) == expected
    # Heads stand in the order of the arrangement, by name.
    heads = [*categories, "cost", "grade", "income", "share", "visits", "wins"]
    assert list(tree["posterior"]["head_of"].values) == heads
    assert tree["posterior"]["noise_ordinal"].dims == ("chain", "draw", "ordinal_task", "ordinal_gap")
    assert "grade" not in tree["posterior"]["noise_task"] and "colour" in tree["posterior"]["noise_task"]
    assert tuple(tree["observed_data"]["colour"].attrs["labels"]) == LABELS
    assert tree["log_likelihood"]["colour"].shape == (2, 4, seven.n_cells[seven.index("colour")])


def test_checks_look_at_what_is_identified(fit) -> None:
    """What is added to all predictors of a categorical task cancels: its convergence must not be asked for."""
    moved = {name: value.copy() for name, value in fit.draws.sites.items()}
    t = fit.tasks.index("colour")
    moved["intercept"][0, :, t : t + 3] += 5.0
    other = type(fit)(fit.model, fit.tasks, fit.settings, "numpyro", "cpu", 0, type(fit.draws)(moved, fit.draws.stats))
    of = "linear predictor of colour"
    values = [own.checks[own.checks["of"] == of]["value"] for own in (fit, other)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-2)


def test_saved_and_loaded(fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit.nc")
    again = bmtl.load(tmp_path / "fit.nc")
    assert again.tasks.families == fit.tasks.families
    assert again.draws.sites.keys() == fit.draws.sites.keys()
    for name, value in fit.draws.sites.items():
        np.testing.assert_array_equal(again.draws.sites[name], value)
    new, old = (own.predict(NEW, exposure={"wins": 3})["predictions"] for own in (again, fit))
    assert all(np.array_equal(new[name], old[name]) for name in fit.tasks.names)


@pytest.mark.parametrize(
    ("exposure", "message"),
    [
        (2.5, r"exposure of task 'wins' must be the number of trials"),
        ({"wins": 2.5}, r"exposure of task 'wins' must be the number of trials.*row 0 \(2.5\)"),
        ({"visits": [1.0, 0.0, 1.0]}, r"exposure of task 'visits' must be finite and > 0: row 1 \(0\)"),
        ({"cost": 2.0}, r"task 'cost' is gamma, which takes no exposure"),
        ({"win": 2.0}, r"exposure names unknown tasks: 'win'"),
    ],
)
def test_exposures_that_tasks_cannot_have(fit, exposure, message) -> None:
    with pytest.raises(TaskError, match=message):
        fit.predict(NEW, exposure=exposure)


# Recovery -------------------------------------------------------------------------------------------------------------

SLOPES = np.array([0.8, -0.5])
N = 500


def drawn(family: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Inputs, outcomes with the linear predictor x·SLOPES (of a first category, zero of the others), exposures."""
    X = rng.normal(size=(N, 2))
    f = X @ SLOPES
    p = special.expit(f)
    exposure = None
    if family == "binomial":
        exposure = rng.integers(1, 12, N).astype(float)
    elif family == "zero_inflated_poisson":
        exposure = rng.uniform(0.5, 3.0, N)
    y = {
        "lognormal": lambda: np.exp(3.0 + f + 0.4 * rng.normal(size=N)),
        "gamma": lambda: rng.gamma(4.0, 0.25 * np.exp(2.0 + f)),
        "beta": lambda: rng.beta(10 * p, 10 * (1 - p)).clip(1e-6, 1 - 1e-6),
        "binomial": lambda: rng.binomial(exposure.astype(int), p),
        "categorical": lambda: np.argmax(np.c_[f, 0 * f, 0 * f] + rng.gumbel(size=(N, 3)), axis=1),
        "ordinal": lambda: np.searchsorted([-0.7, 0.5, 1.5], f + rng.logistic(size=N)),
        "zero_inflated_poisson": lambda: rng.poisson(exposure * np.exp(1.0 + f)) * (rng.random(N) > 0.25),
    }[family]().astype(float)
    return X, y, exposure


TRUE_NOISE = {
    "lognormal": 0.4, "gamma": 0.25, "beta": 0.1, "zero_inflated_poisson": 0.25, "ordinal": np.array([1.2, 1.0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", [
    "lognormal", "gamma", "beta", "binomial", "categorical", "ordinal", "zero_inflated_poisson"])
def test_nuts_recovers_slopes_and_noise(family: str) -> None:
    """Every slope of the linear predictor, and the noise, within four posterior standard deviations of the truth."""
    X, y, exposure = drawn(family, np.random.default_rng(21))
    tasks = Tasks.from_arrays(X, y[:, None], [family], exposure=None if exposure is None else exposure[:, None])
    with warnings.catch_warnings():
        # Few draws are enough for means; whether they are enough for the tails is not the question here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = bmtl.fit(SharedTrunk(Identity()), tasks, method="nuts", seed=1, chains=2, warmup=400, draws=300)
    assert int(fit.draws.stats["diverging"].sum()) <= 3
    sites = {name: value.astype(float) for name, value in fit.draws.sites.items()}
    slopes = sites["amplitude"][..., :1, None] * sites["head"] / np.sqrt(2.0) / tasks.x_scale
    if family == "categorical":
        slopes = slopes / sites["noise_categorical"][..., None]
        slopes = slopes[..., [0, 1], :] - slopes[..., [1, 2], :]
    expected = np.array([SLOPES, 0 * SLOPES]) if family == "categorical" else SLOPES[None]
    assert np.all(np.abs(slopes.mean(axis=(0, 1)) - expected) < 4 * slopes.std(axis=(0, 1)))
    assert np.all(slopes.std(axis=(0, 1)) < 0.25)
    if family in TRUE_NOISE:
        noise = fit.noise["y0"]
        truth = TRUE_NOISE[family]
        assert np.all(np.abs(noise.mean(axis=(0, 1)) - truth) < 4 * noise.std(axis=(0, 1)))
        assert np.all(noise.std(axis=(0, 1)) < 0.25)


# Advice ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_advice_on_every_family(seven, tmp_path: Path) -> None:
    """All seven follow one linear function; categorical outcomes share a trunk with the others, never a head."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        advice = bmtl.advise(
            SharedTrunk(Identity()), seven, seed=0, folds=2, restarts=1, max_steps=500, draws=50, progress=False
        )
    assert len(advice.pairs) == 21 and set(advice.tasks["task"]) == set(seven.names)
    assert np.all(np.isfinite(advice.pairs[["p_merge", "p_weight", "p_decouple", "correlation"]]))
    of_colour = (advice.pairs["task_a"] == "colour") | (advice.pairs["task_b"] == "colour")
    assert np.all(advice.pairs["p_merge"][of_colour] == 0)
    assert all(head == ("colour",) for trunk in advice.arrangement.trunks for head in trunk if "colour" in head)
    assert advice.fit.arrangement == advice.arrangement and "colour" in str(advice)
    advice.report(tmp_path / "advice.html")
