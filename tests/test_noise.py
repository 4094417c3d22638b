"""Priors on scales: names, units, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from numpyro.handlers import seed, trace
from scipy import stats

from bmtl.engine.numpyro import NumPyroEngine
from bmtl.noise import HalfNormal, Known

UNIT = np.array([1.0, 10.0, 0.5])


def sites(prior, scale=UNIT):
    with trace() as found, seed(rng_seed=0):
        value = prior.sample(NumPyroEngine(), "noise", scale, UNIT)
    return np.asarray(value), found


@pytest.mark.parametrize("width", [1.0, 0.3])
def test_half_normal_is_on_the_modelled_scale(width: float) -> None:
    """The user's unit plays no part: outcomes have unit spread where this prior stands."""
    scale = np.array([1.0, 2.0, 3.0])
    value, found = sites(HalfNormal(width), scale)
    expected = stats.halfnorm(scale=width * scale).logpdf(value).sum()
    assert float(found["noise"]["fn"].log_prob(value)) == pytest.approx(expected, rel=1e-5)
    assert list(found) == ["noise"] and value.shape == (3,) and np.all(value > 0)


def test_known_is_in_the_users_units() -> None:
    value, found = sites(Known(2.0))
    np.testing.assert_allclose(value * UNIT, 2.0, rtol=1e-6)
    assert not found


@pytest.mark.parametrize("kind", [HalfNormal, Known])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_refused(kind, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__} needs a finite \w+ > 0, got"):
        kind(value)
