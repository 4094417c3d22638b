"""Families: densities against scipy on both engines, scores and weights against derivatives, supports, priors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from bmtl import families
from bmtl.families import FAMILIES, Bernoulli, Gaussian, NegativeBinomial, Poisson, StudentT

ETA = np.array([-2.0, -0.3, 0.0, 0.8, 2.5])
NOISE = 0.7
EXPOSURE = np.array([1.0, 0.5, 2.0, 3.0, 0.1])
OUTCOMES = {
    "gaussian": np.array([-3.0, 0.1, 0.0, 2.0, 40.0]),
    "student_t": np.array([-3.0, 0.1, 0.0, 2.0, 40.0]),
    "bernoulli": np.array([0.0, 1.0, 0.0, 1.0, 0.0]),
    "poisson": np.array([0.0, 1.0, 7.0, 2.0, 30.0]),
    "negative_binomial": np.array([0.0, 1.0, 7.0, 2.0, 30.0]),
}

every_family = pytest.mark.parametrize("name", FAMILIES)


def exact(name: str, y, eta, noise, exposure):
    """Each family's log-density written out with scipy, from its definition."""
    rate = exposure * np.exp(eta)
    if name == "gaussian":
        return stats.norm(eta, noise).logpdf(y)
    if name == "student_t":
        return stats.t(4.0, eta, noise).logpdf(y)
    if name == "bernoulli":
        return stats.bernoulli(1 / (1 + np.exp(-eta))).logpmf(y)
    if name == "poisson":
        return stats.poisson(rate).logpmf(y)
    # Mean μ and variance μ + noise μ².
    return stats.nbinom(1 / noise, 1 / (1 + noise * rate)).logpmf(y)


def moments(name: str, eta: float, exposure: float, of):
    """Expectation of ``of(y)`` under the family, by a sum over its support or by quadrature."""
    family = FAMILIES[name]()
    if name in ("gaussian", "student_t"):
        def integrand(y):
            return np.exp(family.log_prob(y, eta, NOISE, exposure)) * of(y)

        return integrate.quad(integrand, -np.inf, np.inf, limit=200, epsabs=1e-11)[0]
    y = np.arange(2.0) if name == "bernoulli" else np.arange(3000.0)
    return np.sum(np.exp(family.log_prob(y, eta, NOISE, exposure)) * of(y))


@every_family
def test_log_prob(name: str) -> None:
    y = OUTCOMES[name]
    found = FAMILIES[name]().log_prob(y, ETA, NOISE, EXPOSURE)
    np.testing.assert_allclose(found, exact(name, y, ETA, NOISE, EXPOSURE), rtol=1e-9)


@every_family
@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
def test_distribution_on_both_engines(name: str, engine: str) -> None:
    from bmtl.engine.numpyro import NumPyroEngine
    from bmtl.engine.pyro import PyroEngine

    e = PyroEngine() if engine == "pyro" else NumPyroEngine()
    y = OUTCOMES[name]
    parameters = [e.asarray(value) for value in (ETA, np.full(5, NOISE), EXPOSURE)]
    found = FAMILIES[name]().distribution(e, *parameters).log_prob(e.asarray(y))
    np.testing.assert_allclose(np.asarray(found), exact(name, y, ETA, NOISE, EXPOSURE), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
def test_negative_binomial_near_poisson(engine: str) -> None:
    """Overdispersion close to zero neither overflows nor leaves the Poisson, up to its floor."""
    from bmtl.engine.numpyro import NumPyroEngine
    from bmtl.engine.pyro import PyroEngine

    e = PyroEngine() if engine == "pyro" else NumPyroEngine()
    y = OUTCOMES["poisson"][:4]
    parameters = [e.asarray(value) for value in (ETA[:4], np.full(4, 1e-12), EXPOSURE[:4])]
    found = np.asarray(NegativeBinomial().distribution(e, *parameters).log_prob(e.asarray(y)))
    np.testing.assert_allclose(found, exact("poisson", y, ETA[:4], NOISE, EXPOSURE[:4]), atol=0.02)


@every_family
def test_score_is_the_derivative(name: str) -> None:
    family, y, h = FAMILIES[name](), OUTCOMES[name], 1e-6
    up, down = (family.log_prob(y, ETA + step, NOISE, EXPOSURE) for step in (h, -h))
    np.testing.assert_allclose(family.score(y, ETA, NOISE, EXPOSURE), (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


@every_family
@pytest.mark.parametrize("xp", ["numpy", "jax", "torch"])
def test_weight_is_the_fisher_information(name: str, xp: str) -> None:
    """−E[d² log p / dη²], with the derivative of the score taken numerically and the expectation exactly."""
    namespace, asarray = namespaces(xp)
    family, h = FAMILIES[name](), 1e-5

    def curvature(eta, exposure):
        def of(y):
            return -(family.score(y, eta + h, NOISE, exposure) - family.score(y, eta - h, NOISE, exposure)) / (2 * h)

        return moments(name, eta, exposure, of)

    expected = [curvature(eta, exposure) for eta, exposure in zip(ETA, EXPOSURE, strict=True)]
    found = family.weight(namespace, asarray(ETA), asarray(NOISE), asarray(EXPOSURE))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)
    assert found.shape == ETA.shape


@every_family
@pytest.mark.parametrize("xp", ["numpy", "jax", "torch"])
def test_mean(name: str, xp: str) -> None:
    namespace, asarray = namespaces(xp)
    expected = [moments(name, eta, exposure, lambda y: y) for eta, exposure in zip(ETA, EXPOSURE, strict=True)]
    found = FAMILIES[name]().mean(namespace, asarray(ETA), asarray(NOISE), asarray(EXPOSURE))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5)


def namespaces(name: str):
    if name == "numpy":
        return np, np.asarray
    if name == "jax":
        import jax.numpy as jnp

        return jnp, jnp.asarray
    import array_api_compat.torch as xp
    import torch

    return xp, torch.as_tensor


def test_mean_is_finite_far_out() -> None:
    """An extreme linear predictor must not become an infinite rate in float32."""
    found = Poisson().mean(np, np.array([-1e4, 1e4], dtype=np.float32), 1.0, 1.0)
    assert np.all(np.isfinite(found)) and np.all(found > 0)


@pytest.mark.parametrize("dof", [2.0, 1.0, 0.0, -1.0, float("nan")])
def test_student_t_needs_a_variance(dof: float) -> None:
    with pytest.raises(ValueError, match=r"StudentT needs dof > 2 .*, got"):
        StudentT(dof)


def test_student_t_dof_reaches_every_formula() -> None:
    family = StudentT(10.0)
    np.testing.assert_allclose(family.log_prob(1.0, 0.0, 2.0), stats.t(10.0, 0.0, 2.0).logpdf(1.0))
    assert family.weight(np, np.zeros(1), np.array(2.0), 1.0) == pytest.approx(11 / 13 / 4)
    assert family.score(1.0, 0.0, 2.0) == pytest.approx(11 / (10 * 4 + 1))
    assert family != StudentT() and family == StudentT(10)


EDGES = [-np.inf, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6, np.inf, np.nan]


@pytest.mark.parametrize(
    ("family", "allowed"),
    [
        (Gaussian(), [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6]),
        (StudentT(), [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6]),
        (Bernoulli(), [0.0, 1.0]),
        (Poisson(), [0.0, 1.0, 2.0, 1e6]),
        (NegativeBinomial(), [0.0, 1.0, 2.0, 1e6]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_support(family, allowed) -> None:
    y = np.array(EDGES)
    np.testing.assert_array_equal(y[family.valid(y)], allowed)


@pytest.mark.parametrize("value", [0.0, 1.0])
@every_family
def test_intercept_prior_is_finite_for_constant_outcomes(name: str, value: float) -> None:
    loc, scale = FAMILIES[name]().intercept(np.full(6, value), np.full(6, 0.5))
    assert np.isfinite(loc) and 0 < scale < np.inf


def test_intercept_priors_sit_at_the_data() -> None:
    rng = np.random.default_rng(0)
    y = rng.poisson(6.0, 4000).astype(float)
    for family in (Poisson(), NegativeBinomial()):
        assert family.intercept(y, 2.0)[0] == pytest.approx(np.log(3.0), abs=0.05)
    above = (y > 6).astype(float)
    assert Bernoulli().intercept(above)[0] == pytest.approx(np.log(above.mean() / (1 - above.mean())), abs=0.01)
    assert Gaussian().intercept(y)[0] == pytest.approx(y.mean())
    assert StudentT().intercept(np.array([0.0, 0.0, 1e9]))[0] == 0.0


@every_family
def test_get(name: str) -> None:
    family = families.get(name)
    assert type(family) is FAMILIES[name] and families.get(family) is family
    assert (family.noise_name is None) == (name in ("bernoulli", "poisson"))


def test_unknown_family() -> None:
    with pytest.raises(ValueError, match=r"unknown family 'gauss'; known: bernoulli, gaussian, negative_binomial"):
        families.get("gauss")


@pytest.mark.parametrize("call", ["valid", "intercept", "distribution", "mean", "weight", "score", "log_prob"])
def test_a_new_family_is_told_what_it_lacks(call: str) -> None:
    from bmtl.families import Family

    class Empty(Family):
        name = "empty"

    n = {"valid": 1, "intercept": 1, "score": 3, "log_prob": 3}.get(call, 4)
    with pytest.raises(TypeError, match="Empty does not define its"):
        getattr(Empty(), call)(*[np.ones(2)] * n)
