"""The scikit-learn face: scikit-learn's own checks, and that it is the same fit underneath."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import bmtl
from bmtl.models import SharedTrunk
from bmtl.sklearn import MultiTaskClassifier, MultiTaskRegressor
from bmtl.trunks import Identity

QUICK: dict[str, Any] = {"restarts": 1, "max_steps": 2000, "draws": 200}
SETTLED = QUICK | {"max_steps": 20_000}
ESTIMATORS = [
    MultiTaskRegressor(trunk=Identity(), options=QUICK, random_state=0),
    MultiTaskClassifier(trunk=Identity(), options=QUICK, random_state=0),
]

pytestmark = pytest.mark.filterwarnings("ignore::bmtl.ConvergenceWarning")


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def linear() -> tuple[np.ndarray, np.ndarray]:
    """Two linear outcomes with noises of 1 and 3, a fifth of the second not observed."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(200, 2)) * [1.0, 10.0]
    Y = X @ np.array([[3.0, -2.0], [0.1, 0.5]]) + [10.0, -50.0] + rng.normal(size=(200, 2)) * [1.0, 3.0]
    Y[rng.random(200) < 0.2, 1] = np.nan
    return X, Y


@pytest.fixture(scope="module")
def regressor(linear: tuple[np.ndarray, np.ndarray]) -> MultiTaskRegressor:
    return MultiTaskRegressor(trunk=Identity(), options=SETTLED, random_state=0).fit(*linear)


def test_it_is_the_fit_of_the_same_seed(regressor: Any, linear: Any) -> None:
    tasks = bmtl.Tasks.from_arrays(*linear, families=["gaussian", "gaussian"])
    same = bmtl.fit(SharedTrunk(Identity()), tasks, seed=0, **SETTLED)
    for name, value in same.draws.sites.items():
        np.testing.assert_array_equal(value, regressor.fit_.draws.sites[name])
    expected = same.predict(linear[0])["mean"]["y1"].mean(["chain", "draw"])
    np.testing.assert_allclose(regressor.predict(linear[0])[:, 1], expected, rtol=1e-5, atol=1e-4)


def test_predictions_and_their_spread(regressor: Any, linear: Any) -> None:
    X, Y = linear
    mean, sd = regressor.predict(X, return_std=True)
    assert mean.shape == sd.shape == Y.shape
    # The spread is that of a new observation: residuals fill it, to three standard errors of their variance.
    ratio = np.nanmean(((Y - mean) / sd) ** 2, axis=0)
    assert np.all(np.abs(ratio - 1.0) < 3.0 * np.sqrt(2.0 / np.sum(~np.isnan(Y), axis=0)) + 0.05)
    at = ~np.isnan(Y[:, 1])
    r2 = [1 - np.var(Y[at, t] - mean[at, t]) / np.var(Y[at, t]) for t in (0, 1)]
    assert abs(regressor.score(X[at], Y[at]) - np.mean(r2)) < 0.01


def test_a_row_is_predicted_alike_in_any_company(regressor: Any, linear: Any) -> None:
    X = np.tile(linear[0], (3, 1))
    np.testing.assert_array_equal(regressor.predict(X)[450:452], regressor.predict(X[450:452]))


def test_score_leaves_out_what_is_not_observed(regressor: Any, linear: Any) -> None:
    X, Y = linear
    found = regressor.predict(X)
    unexplained, total = np.nansum((Y - found) ** 2, axis=0), np.nansum((Y - np.nanmean(Y, axis=0)) ** 2, axis=0)
    assert regressor.score(X, Y) == pytest.approx(np.mean(1 - unexplained / total), abs=1e-9)


def test_pickled_and_cloned(regressor: Any, linear: Any) -> None:
    again = pickle.loads(pickle.dumps(regressor))
    np.testing.assert_array_equal(again.predict(linear[0]), regressor.predict(linear[0]))
    assert clone(regressor).get_params() == regressor.get_params() and not hasattr(clone(regressor), "fit_")


def test_names_of_frames(linear: Any) -> None:
    X, Y = pd.DataFrame(linear[0], columns=["a", "b"]), pd.DataFrame(linear[1], columns=["u", "v"])
    found = MultiTaskRegressor(trunk=Identity(), method="map", options={"restarts": 1}, random_state=0).fit(X, Y)
    assert found.fit_.tasks.names == ("u", "v") and found.fit_.tasks.inputs == ("a", "b")
    with pytest.raises(ValueError, match="feature names should match"):
        found.predict(X.rename(columns={"a": "c"}))


def test_arrangements_and_families(linear: Any) -> None:
    X, Y = linear
    quick: dict[str, Any] = {"trunk": Identity(), "method": "map", "options": {"restarts": 1, "max_steps": 500}}
    found = MultiTaskRegressor(["gaussian", "student_t"], arrangement="decoupled", random_state=0, **quick).fit(X, Y)
    assert str(found.fit_.arrangement) == "{y0} | {y1}"
    assert [own.name for own in found.fit_.tasks.families] == ["gaussian", "student_t"]
    with pytest.raises(ValueError, match="unknown arrangement 'alone'; known: shared, decoupled, merged"):
        MultiTaskRegressor(arrangement="alone").fit(X, Y)
    with pytest.raises(ValueError, match="for MultiTaskClassifier, got the family ordinal"):
        MultiTaskRegressor(["gaussian", "ordinal"]).fit(X, Y)
    with pytest.raises(ValueError, match="families has 3 entries for 2 tasks"):
        MultiTaskRegressor(["gaussian"] * 3).fit(X, Y)


def test_several_outcomes_of_classes() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 2))
    eta = X @ np.array([2.0, -1.0])
    sick = np.where(eta + rng.logistic(size=300) > 0, "yes", "no")
    utility = np.outer(eta, [2.0, 0.0, -2.0]) + rng.gumbel(size=(300, 3))
    colour = np.array(["blue", "green", "red"])[np.argmax(utility, axis=1)]
    y = np.column_stack([sick, colour])
    found = MultiTaskClassifier(trunk=Identity(), method="map", options={"restarts": 1}, random_state=0).fit(X, y)
    assert [own.tolist() for own in found.classes_] == [["no", "yes"], ["blue", "green", "red"]]
    assert [own.name for own in found.fit_.tasks.families] == ["bernoulli", "categorical"]
    p, q = found.predict_proba(X)
    assert p.shape == (300, 2) and q.shape == (300, 3)
    np.testing.assert_allclose([*p.sum(axis=1), *q.sum(axis=1)], 1.0)
    # Calibrated within the data: three standard errors of a mean of 300 yes/no.
    assert abs(p[:, 1].mean() - np.mean(sick == "yes")) < 0.09
    both = found.predict(X)
    assert both[:, 0].tolist() == np.where(p[:, 1] > 0.5, "yes", "no").tolist()
    assert found.score(X, y) == np.mean((both == y).all(axis=1)) > 0.5
    with pytest.raises(ValueError, match="outcome 1 has one class only: 'blue'"):
        MultiTaskClassifier().fit(X, np.column_stack([sick, np.full(300, "blue")]))


@pytest.mark.slow
def test_advice_is_there_if_asked_for(linear: Any) -> None:
    options = {**QUICK, "folds": 2}
    found = MultiTaskRegressor(trunk=Identity(), advise=True, options=options, random_state=0).fit(*linear)
    assert found.fit_ is found.advice_.fit and found.fit_.arrangement == found.advice_.arrangement
    assert found.predict(linear[0]).shape == (200, 2)


@pytest.mark.slow
def test_in_a_cross_validation(linear: Any) -> None:
    scores = cross_val_score(ESTIMATORS[0], linear[0], linear[1][:, 0], cv=2)
    # Signal against noise: 9 + 1 against 1.
    assert np.all(scores > 0.8)
