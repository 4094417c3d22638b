"""Trunks: shapes, scales of the features, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from numpyro.handlers import seed, substitute, trace

from bmtl.engine.numpyro import NumPyroEngine
from bmtl.trunks import MLP, Fourier, Identity, Linear

LEARNED = [Linear(3), MLP((8, 5)), MLP((8, 5), "relu"), Fourier(10)]
learned = pytest.mark.parametrize("trunk", LEARNED, ids=["linear", "tanh", "relu", "fourier"])
X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def sample(trunk, copies: int, key: int = 0, sites=None):
    """Features and sites of one draw."""
    with trace() as found, seed(rng_seed=key), substitute(data=sites or {}):
        features = trunk.sample(NumPyroEngine(), X, copies)
    return np.asarray(features), {name: np.asarray(site["value"]) for name, site in found.items()}


@learned
@pytest.mark.parametrize("copies", [1, 3])
def test_shapes_and_names(trunk, copies) -> None:
    features, sites = sample(trunk, copies)
    width = {Linear: 3, MLP: 5, Fourier: 10}[type(trunk)]
    assert features.shape == (copies, 50, width)
    assert sites and all(name.startswith("trunk_") and len(value) == copies for name, value in sites.items())
    assert trunk.learned and trunk.linear == isinstance(trunk, Linear)


def test_identity_has_nothing_to_learn() -> None:
    features, sites = sample(Identity(), 3)
    np.testing.assert_array_equal(features, X[None])
    assert not sites and Identity.linear and not Identity.learned


@learned
def test_copies_are_independent_computations(trunk) -> None:
    """Each copy's features are those of a trunk alone with that copy's parameters."""
    features, sites = sample(trunk, 3)
    assert not np.allclose(features[0], features[1])
    for copy in range(3):
        alone, _ = sample(trunk, 1, sites={name: value[copy : copy + 1] for name, value in sites.items()})
        np.testing.assert_allclose(alone[0], features[copy], rtol=1e-5, atol=1e-6)


def test_mlp_is_what_it_says() -> None:
    features, w = sample(MLP((8, 5)), 2)
    for copy in range(2):
        hidden = np.tanh(X @ w["trunk_w0"][copy] + w["trunk_b0"][copy])
        expected = np.tanh(hidden @ w["trunk_w1"][copy] + w["trunk_b1"][copy])
        np.testing.assert_allclose(features[copy], expected, atol=1e-5)
    relu, _ = sample(MLP((8, 5), "relu"), 2, sites=w)
    hidden = np.maximum(X @ w["trunk_w0"][0] + w["trunk_b0"][0], 0)
    np.testing.assert_allclose(relu[0], np.maximum(hidden @ w["trunk_w1"][0] + w["trunk_b1"][0], 0), atol=1e-5)


def test_linear_is_what_it_says() -> None:
    features, sites = sample(Linear(3), 2)
    np.testing.assert_allclose(features, X @ sites["trunk_w"], atol=1e-5)


def test_fourier_features_approach_the_kernel() -> None:
    """With many features φ(x)·φ(x')/k is the squared-exponential kernel at the drawn lengthscales."""
    features, sites = sample(Fourier(20_000), 1)
    scaled = X / sites["trunk_lengthscale"][0]
    kernel = np.exp(-0.5 * np.sum((scaled[:, None] - scaled[None]) ** 2, axis=-1))
    gram = features[0] @ features[0].T / 20_000
    # The mean of 10,000 cosines, each of variance at most 1/2, is within 5 standard errors.
    assert np.max(np.abs(gram - kernel)) < 5 * np.sqrt(0.5 / 10_000)
    np.testing.assert_allclose(np.diag(gram), 1.0, atol=1e-5)


def test_fourier_frequencies_belong_to_the_specification() -> None:
    first, sites = sample(Fourier(10, seed=1), 1)
    again, _ = sample(Fourier(10, seed=1), 1, key=9, sites=sites)
    other, _ = sample(Fourier(10, seed=2), 1, sites=sites)
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("width", [4, 256])
def test_prior_does_not_depend_on_the_width(width: int) -> None:
    """The spread of φ(x)·w/√k under the prior is that of a narrow network, whatever the width."""
    spread = [np.mean(sample(MLP((width, width)), 40, key)[0] ** 2) for key in range(4)]
    # tanh features of standardised inputs: E φ² does not change with the width beyond its own sampling error.
    wide = [np.mean(sample(MLP((64, 64)), 40, key)[0] ** 2) for key in range(10, 14)]
    error = np.hypot(np.std(spread, ddof=1), np.std(wide, ddof=1)) / 2
    assert abs(np.mean(spread) - np.mean(wide)) < 5 * error


def test_linear_prior_is_of_unit_scale() -> None:
    features, _ = sample(Linear(50), 40)
    own = X.astype(float) ** 2
    expected = np.mean(own.sum(axis=1)) / X.shape[1]
    values = np.mean(features.astype(float) ** 2, axis=(1, 2))
    assert abs(values.mean() - expected) < 5 * values.std(ddof=1) / np.sqrt(40)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0), "Linear needs features ≥ 1, got 0"),
        (lambda: MLP(()), "MLP needs at least one width"),
        (lambda: MLP((4, 0)), r"MLP needs at least one width, all ≥ 1, got \(4, 0\)"),
        (lambda: MLP((4,), "sigmoid"), "unknown activation 'sigmoid'; known: tanh, relu"),
        (lambda: Fourier(7), "Fourier needs an even number of features ≥ 2, got 7"),
        (lambda: Fourier(0), "Fourier needs an even number of features ≥ 2, got 0"),
    ],
)
def test_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_widths_may_be_a_list() -> None:
    assert MLP([4, 3]) == MLP((4, 3)) and hash(MLP([4, 3])) == hash(MLP((4, 3)))
