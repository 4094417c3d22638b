"""Families: densities against scipy on both engines, scores and weights against derivatives, supports, priors."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import integrate, special, stats

from bmtl import families
from bmtl.families import (
    FAMILIES,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Gamma,
    Gaussian,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    ZeroInflatedPoisson,
)

ETA = np.array([-2.0, -0.3, 0.0, 0.8, 2.5])
ETAS = np.stack([ETA, ETA[::-1], 0.5 - ETA], axis=-1)
EXPOSURE = np.array([1.0, 0.5, 2.0, 3.0, 0.1])
TRIALS = np.array([1.0, 4.0, 2.0, 30.0, 7.0])
KINDS = {name: kind() for name, kind in FAMILIES.items()} | {
    "categorical": Categorical(("low", "mid", "high")), "ordinal": Ordinal(("never", "once", "twice", "often")),
}
OUTCOMES = {
    "gaussian": np.array([-3.0, 0.1, 0.0, 2.0, 40.0]),
    "student_t": np.array([-3.0, 0.1, 0.0, 2.0, 40.0]),
    "laplace": np.array([-3.0, 0.1, 0.5, 2.0, 40.0]),
    "lognormal": np.array([0.01, 0.7, 1.0, 5.0, 300.0]),
    "gamma": np.array([0.01, 0.7, 1.0, 5.0, 60.0]),
    "beta": np.array([0.001, 0.3, 0.5, 0.9, 0.96875]),
    "bernoulli": np.array([0.0, 1.0, 0.0, 1.0, 0.0]),
    "binomial": np.array([0.0, 4.0, 1.0, 17.0, 0.0]),
    "categorical": np.array([0.0, 1.0, 2.0, 1.0, 0.0]),
    "ordinal": np.array([0.0, 1.0, 2.0, 3.0, 1.0]),
    "poisson": np.array([0.0, 1.0, 7.0, 2.0, 30.0]),
    "negative_binomial": np.array([0.0, 1.0, 7.0, 2.0, 30.0]),
    "zero_inflated_poisson": np.array([0.0, 1.0, 0.0, 0.0, 30.0]),
}
NOISE = 0.7
GAPS = np.array([0.7, 1.6])
LABELLED = ("categorical", "ordinal")

every_family = pytest.mark.parametrize("name", FAMILIES)
one_predictor = pytest.mark.parametrize("name", [name for name in FAMILIES if name != "categorical"])


def arguments(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear predictors, noise and exposures of five outcomes."""
    # With a larger dispersion a beta has so much mass near 1 that double precision cannot tell where.
    noise = np.tile(GAPS, (5, 1)) if name == "ordinal" else np.full(5, 0.1 if name == "beta" else NOISE)
    return ETAS if name == "categorical" else ETA, noise, TRIALS if name == "binomial" else EXPOSURE


def exact(name: str, y, eta, noise, exposure):
    """Each family's log-density written out with scipy, from its definition."""
    rate, p = exposure * np.exp(eta) if name != "categorical" else None, 1 / (1 + np.exp(-eta))
    if name == "ordinal":
        cuts = np.column_stack([np.zeros(5), np.cumsum(noise, axis=1)])
        below = np.column_stack([np.zeros(5), stats.logistic(eta[:, None]).cdf(cuts), np.ones(5)])
        return np.log(np.diff(below, axis=1)[np.arange(5), y.astype(int)])
    if name == "categorical":
        return np.log(special.softmax(eta / noise[:, None], axis=1)[np.arange(5), y.astype(int)])
    usual = stats.poisson(rate).pmf(y)
    return {
        "gaussian": lambda: stats.norm(eta, noise).logpdf(y),
        "student_t": lambda: stats.t(4.0, eta, noise).logpdf(y),
        "laplace": lambda: stats.laplace(eta, noise).logpdf(y),
        "lognormal": lambda: stats.lognorm(noise, scale=np.exp(eta)).logpdf(y),
        # Mean μ and variance noise μ².
        "gamma": lambda: stats.gamma(1 / noise, scale=noise * np.exp(eta)).logpdf(y),
        "beta": lambda: stats.beta(p / noise, (1 - p) / noise).logpdf(y),
        "bernoulli": lambda: stats.bernoulli(p).logpmf(y),
        "binomial": lambda: stats.binom(exposure, p).logpmf(y),
        "poisson": lambda: stats.poisson(rate).logpmf(y),
        # Mean μ and variance μ + noise μ².
        "negative_binomial": lambda: stats.nbinom(1 / noise, 1 / (1 + noise * rate)).logpmf(y),
        "zero_inflated_poisson": lambda: np.log(noise * (y == 0) + (1 - noise) * usual),
    }[name]()


def moments(name: str, eta, noise, exposure: float, of):
    """Expectation of ``of(y)`` under the family, by a sum over its support or by quadrature."""
    family = KINDS[name]
    ends = {"gaussian": (-np.inf, np.inf), "student_t": (-np.inf, np.inf)}
    # On the log and the logit scale, where the densities have no poles.
    if name in ("lognormal", "gamma"):
        def integrand(z):
            return np.exp(family.log_prob(np.exp(z), eta, noise, exposure) + z) * of(np.exp(z))

        return integrate.quad(integrand, eta - 40.0, eta + 9.0, limit=400, epsabs=1e-11, points=[eta])[0]
    if name == "beta":
        def integrand(z):
            y = special.expit(z)
            return np.exp(family.log_prob(y, eta, noise, exposure) + np.log(y) + special.log_expit(-z)) * of(y)

        return integrate.quad(integrand, -40.0, 28.0, limit=800, epsabs=1e-9, points=[-5.0, 0.0, 5.0])[0]
    if name == "laplace":
        # Either side of its edge, beyond which the density is nothing.
        def integrand(y):
            return np.exp(family.log_prob(y, eta, noise, exposure)) * of(y)

        sides = ((eta - 60.0 * noise, eta), (eta, eta + 60.0 * noise))
        return sum(integrate.quad(integrand, *side, limit=200, epsabs=1e-11)[0] for side in sides)
    if name in ends:
        def integrand(y):
            return np.exp(family.log_prob(y, eta, noise, exposure)) * of(y)

        return integrate.quad(integrand, *ends[name], limit=200, epsabs=1e-11)[0]
    size = {"bernoulli": 2, "binomial": exposure + 1, **{own: len(KINDS[own].labels) for own in LABELLED}}
    y = np.arange(float(size.get(name, 3000)))
    return np.sum(np.exp(family.log_prob(y, eta, noise, exposure)) * of(y))


@every_family
def test_log_prob(name: str) -> None:
    y, parameters = OUTCOMES[name], arguments(name)
    np.testing.assert_allclose(KINDS[name].log_prob(y, *parameters), exact(name, y, *parameters), rtol=1e-9)


def engine_of(name: str):
    from bmtl.engine.numpyro import NumPyroEngine
    from bmtl.engine.pyro import PyroEngine

    return PyroEngine() if name == "pyro" else NumPyroEngine()


@every_family
@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
def test_distribution_on_both_engines(name: str, engine: str) -> None:
    e, y = engine_of(engine), OUTCOMES[name]
    held = e.asarray(y) if name not in LABELLED else e.xp.asarray(y.astype(np.int32))
    found = KINDS[name].distribution(e, *map(e.asarray, arguments(name))).log_prob(held)
    np.testing.assert_allclose(np.asarray(found), exact(name, y, *arguments(name)), rtol=2e-5, atol=1e-5)


@every_family
@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
@pytest.mark.parametrize("far", [30.0, 1e4, -30.0, -1e4])
def test_finite_far_out(name: str, engine: str, far: float) -> None:
    """Log-density, its gradient, mean and weight, in single precision, at noises small and large too."""
    import jax
    import torch

    e, family = engine_of(engine), KINDS[name]
    y = OUTCOMES[name].astype(family.dtype)
    eta, noise, exposure = arguments(name)
    # Two predictors that are far out in opposite directions, where there are several.
    eta = (far * np.sign(ETAS + 0.1) if name == "categorical" else np.full(5, far)).astype(np.float32)
    for size in (1e-3, 1.0, 30.0) if name != "zero_inflated_poisson" else (0.0, 0.5, 1.0):
        if family.standardised and size < 1.0:
            continue
        own, exposed = e.asarray(size * noise / noise.max()), e.asarray(exposure)

        def score(eta, own=own, exposed=exposed):
            held = e.xp.asarray(y)
            return family.distribution(e, eta, own, exposed).log_prob(held).sum()

        if engine == "numpyro":
            value, slope = jax.value_and_grad(score)(eta)
        else:
            held = torch.tensor(eta, requires_grad=True)
            value = score(held)
            (slope,) = torch.autograd.grad(value, held)
            value = value.detach()
        read = [of(e.xp, e.asarray(eta), own, exposed) for of in (family.mean, family.weight)]
        assert all(np.all(np.isfinite(np.asarray(found))) for found in (value, slope, *read))
        assert np.all(np.asarray(read[1]) >= 0)


@pytest.mark.parametrize("engine", ["pyro", "numpyro"])
def test_negative_binomial_near_poisson(engine: str) -> None:
    """Overdispersion close to zero neither overflows nor leaves the Poisson, up to its floor."""
    e, y = engine_of(engine), OUTCOMES["poisson"][:4]
    parameters = [e.asarray(value) for value in (ETA[:4], np.full(4, 1e-12), EXPOSURE[:4])]
    found = np.asarray(NegativeBinomial().distribution(e, *parameters).log_prob(e.asarray(y)))
    np.testing.assert_allclose(found, exact("poisson", y, ETA[:4], NOISE, EXPOSURE[:4]), atol=0.02)


@every_family
def test_score_is_the_derivative(name: str) -> None:
    family, y, h = KINDS[name], OUTCOMES[name], 1e-6
    eta, noise, exposure = arguments(name)
    steps = [h] if name != "categorical" else h * np.eye(3)
    found = []
    for step in steps:
        up, down = (family.log_prob(y, eta + s, noise, exposure) for s in (step, -step))
        found.append((up - down) / (2 * h))
    expected = found[0] if len(found) == 1 else np.stack(found, axis=-1)
    np.testing.assert_allclose(family.score(y, eta, noise, exposure), expected, rtol=1e-6, atol=1e-6)


@every_family
@pytest.mark.parametrize("xp", ["numpy", "jax", "torch"])
def test_weight_is_the_fisher_information(name: str, xp: str) -> None:
    """−E[d² log p / dη²], with the derivative of the score taken numerically and the expectation exactly.

    Of a density with an edge E[(d log p / dη)²], which is the same where both are defined.
    """
    namespace, asarray = namespaces(xp)
    family, h = KINDS[name], 1e-5

    def curvature(eta, noise, exposure):
        if name == "laplace":
            return moments(name, eta, noise, exposure, lambda y: family.score(y, eta, noise, exposure) ** 2)

        def along(step):
            def of(y):
                up, down = (family.score(y, eta + s, noise, exposure) for s in (step, -step))
                return -((up - down) / (2 * h) if name != "categorical" else (up - down) @ step / (2 * h**2))

            return moments(name, eta, noise, exposure, of)

        return along(h) if name != "categorical" else np.mean([along(step) for step in h * np.eye(3)])

    expected = [curvature(*own) for own in zip(*arguments(name), strict=True)]
    found = family.weight(namespace, *map(asarray, arguments(name)))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5)
    assert found.shape == ETA.shape


@every_family
@pytest.mark.parametrize("xp", ["numpy", "jax", "torch"])
def test_mean(name: str, xp: str) -> None:
    """The expected outcome, or the probability of each label."""
    namespace, asarray = namespaces(xp)
    labels = len(KINDS[name].labels)
    expected = [
        moments(name, *own, lambda y: y) if not labels else [moments(name, *own, lambda y, k=k: y == k)
                                                             for k in range(labels)]
        for own in zip(*arguments(name), strict=True)
    ]
    found = KINDS[name].mean(namespace, *map(asarray, arguments(name)))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-5)


@every_family
def test_draws_have_the_moments_of_the_density(name: str) -> None:
    rng = np.random.default_rng(0)
    family, n = KINDS[name], 40_000
    for own in list(zip(*arguments(name), strict=True))[1:4]:
        eta, noise, exposure = (np.broadcast_to(np.asarray(value, dtype=float), (n, *np.shape(value))) for value in own)
        drawn = family.draw(rng, eta, noise, exposure)
        assert drawn.shape == (n,)
        assert family.valid(drawn).all()
        # Functions whose moments exist for every family.
        for of in (np.tanh, lambda y: y / (1.0 + y**2)):
            expected = moments(name, *own, of)
            spread = np.sqrt(moments(name, *own, lambda y, of=of, expected=expected: (of(y) - expected) ** 2))
            assert abs(np.mean(of(drawn)) - expected) < 4.5 * spread / np.sqrt(n) + 1e-9


def namespaces(name: str):
    if name == "numpy":
        return np, np.asarray
    if name == "jax":
        import jax.numpy as jnp

        return jnp, jnp.asarray
    import array_api_compat.torch as xp
    import torch

    return xp, torch.as_tensor


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


@pytest.mark.parametrize("family", [StudentT(), StudentT(9.0), Laplace()], ids=repr)
def test_tails(family) -> None:
    """ψ(u)/u, ψ'(u) and the expected informations are those of the density."""
    u = np.array([-7.0, -1.3, 0.4, 2.2])
    np.testing.assert_allclose(family.pull(u, 1e-6) * u, family.score(u, 0.0, 1.0))
    if family.bend(u) is not None:
        slope = (family.score(u + 1e-5, 0.0, 1.0) - family.score(u - 1e-5, 0.0, 1.0)) / 2e-5
        np.testing.assert_allclose(family.bend(u), slope, rtol=1e-6)

    def expected(of):
        return 2 * integrate.quad(lambda u: np.exp(family.log_prob(u, 0.0, 1.0)) * of(u), 0.0, np.inf)[0]

    psi = partial(family.score, eta=0.0, noise=1.0)
    assert expected(lambda u: psi(u) ** 2) == pytest.approx(family.information)
    assert expected(lambda u: (u * psi(u) - 1.0) ** 2) == pytest.approx(family.scale_information)
    assert family.pull(np.zeros(1), 0.5) <= 2.0


EDGES = [-np.inf, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6, np.inf, np.nan]


@pytest.mark.parametrize(
    ("family", "allowed"),
    [
        (Gaussian(), [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6]),
        (StudentT(), [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6]),
        (Laplace(), [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 1e6]),
        (Bernoulli(), [0.0, 1.0]),
        (Poisson(), [0.0, 1.0, 2.0, 1e6]),
        (NegativeBinomial(), [0.0, 1.0, 2.0, 1e6]),
        (ZeroInflatedPoisson(), [0.0, 1.0, 2.0, 1e6]),
        (Binomial(), [0.0, 1.0, 2.0, 1e6]),
        (LogNormal(), [0.5, 1.0, 1.5, 2.0, 1e6]),
        (Gamma(), [0.5, 1.0, 1.5, 2.0, 1e6]),
        (Beta(), [0.5]),
        (Categorical(), [0.0, 1.0, 2.0, 1e6]),
        (Ordinal(("a", "b", "c")), [0.0, 1.0, 2.0]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_support(family, allowed) -> None:
    y = np.array(EDGES)
    np.testing.assert_array_equal(y[family.valid(y)], allowed)


@pytest.mark.parametrize("kind", [LogNormal(), Gamma(), Beta()], ids=lambda kind: kind.name)
def test_no_outcome_that_single_precision_cannot_hold(kind) -> None:
    """What rounds to the end of the support has no density."""
    y = np.array([1e-300, 1e-40, 1.0 - 1e-12, 1e-30, 0.3])
    held = y.astype(np.float32)
    assert kind.valid(y).tolist() == ((held > 1e-38) & ((held < 1) | (kind.name != "beta"))).tolist()


@every_family
def test_priors_are_finite_for_constant_outcomes(name: str) -> None:
    family = KINDS[name]
    for value in {family.filler, *([] if name in ("lognormal", "gamma", "beta") else [0.0])}:
        y, exposure = np.full(6, value), np.full(6, 3.0 if name == "binomial" else 0.5)
        loc, scale = family.intercept(y, exposure)
        assert np.all(np.isfinite(loc)) and np.shape(loc) == ((3,) if name == "categorical" else ())
        assert 0 < scale < np.inf and 0 < family.spread(y, exposure) < np.inf
        assert np.all(np.isfinite(family.reference(y, exposure))) and np.all(family.reference(y, exposure) > 0)


@pytest.mark.parametrize("name", ["lognormal", "gamma", "beta"])
def test_priors_follow_the_spread_of_the_data(name: str) -> None:
    """Outcomes with a tenth of the spread have a tenth of the prior scales, whatever their unit."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=20_000)
    y = {name: np.exp(7.0 + 0.01 * z) for name in ("lognormal", "gamma")} | {"beta": special.expit(0.4 + 0.01 * z)}
    narrow, wide = y[name], (special.expit(0.4 + 0.1 * z) if name == "beta" else np.exp(-9.0 + 0.1 * z))
    family = KINDS[name]
    assert family.spread(narrow) == pytest.approx(0.01, rel=0.03)
    assert family.spread(wide) == pytest.approx(0.1, rel=0.03)
    assert family.reference(narrow)[0] < 0.11 * family.reference(wide)[0]


@pytest.mark.parametrize(
    ("name", "noise"),
    [("gamma", 0.4), ("beta", 0.1), ("negative_binomial", 0.8), ("zero_inflated_poisson", 0.35), ("ordinal", GAPS)],
)
def test_noise_is_estimated_given_the_linear_predictor(name: str, noise) -> None:
    rng = np.random.default_rng(4)
    eta = rng.normal(size=60_000)
    p, rate = special.expit(eta), np.exp(eta)
    y = {
        "gamma": lambda: rng.gamma(1 / noise, noise * rate),
        "beta": lambda: rng.beta(p / noise, (1 - p) / noise),
        "negative_binomial": lambda: rng.poisson(rate * rng.gamma(1 / noise, noise, len(eta))),
        "zero_inflated_poisson": lambda: rng.poisson(rate) * (rng.random(len(eta)) > noise),
        "ordinal": lambda: np.searchsorted([0.0, *np.cumsum(GAPS)], eta + rng.logistic(size=len(eta))),
    }[name]().astype(float)
    np.testing.assert_allclose(KINDS[name].estimate_noise(y, eta), noise, rtol=0.05)


def test_extra_zeros_do_not_lower_the_prior_rate() -> None:
    rng = np.random.default_rng(5)
    exposure = rng.uniform(0.5, 4.0, 50_000)
    y = rng.poisson(3.0 * exposure) * (rng.random(50_000) < 0.4)
    assert ZeroInflatedPoisson().intercept(y, exposure)[0] == pytest.approx(np.log(3.0), abs=0.02)


def test_labels() -> None:
    family = Ordinal(["a", 2, "c"])
    assert family.levels == family.labels == ("a", "2", "c") and hash(family) == hash(Ordinal(("a", "2", "c")))
    assert (Ordinal().n_predictors, Categorical("abcd"[i] for i in range(4)).n_predictors) == (1, 4)
    assert Gaussian().labels == ()
    with pytest.raises(ValueError, match=r"Categorical has repeated categories: 'a'"):
        Categorical(("a", "b", "a"))
    with pytest.raises(ValueError, match=r"Ordinal needs at least 3 levels, got 'a', 'b'; two are a bernoulli outcome"):
        Ordinal(("a", "b"))
    with pytest.raises(ValueError, match=r"Categorical needs a sequence of categories, got the text 'abc'"):
        Categorical("abc")


def test_ordinal_shares_without_inputs_are_the_observed_ones() -> None:
    """The prior of gaps and intercept is centred where the levels are as frequent as in the data."""
    family, y = KINDS["ordinal"], np.repeat([0.0, 1.0, 2.0, 3.0], [400, 50, 900, 300])
    p = family.mean(np, np.array(family.intercept(y)[0]), family.reference(y), 1.0)
    np.testing.assert_allclose(p, np.array([400, 50, 900, 300]) / 1650, atol=1e-3)


def test_intercept_priors_sit_at_the_data() -> None:
    rng = np.random.default_rng(0)
    y = rng.poisson(6.0, 4000).astype(float)
    for family in (Poisson(), NegativeBinomial()):
        assert family.intercept(y, 2.0)[0] == pytest.approx(np.log(3.0), abs=0.05)
    above = (y > 6).astype(float)
    assert Bernoulli().intercept(above)[0] == pytest.approx(np.log(above.mean() / (1 - above.mean())), abs=0.01)
    assert Gaussian().intercept(y)[0] == pytest.approx(y.mean())
    for tailed in (StudentT(), Laplace()):
        assert tailed.intercept(np.array([0.0, 0.0, 1e9]))[0] == 0.0


@every_family
def test_get(name: str) -> None:
    family = families.get(name)
    assert type(family) is FAMILIES[name] and families.get(family) is family
    assert (family.noise_name is None) == (name in ("bernoulli", "binomial", "poisson"))


def test_unknown_family() -> None:
    with pytest.raises(ValueError, match=r"unknown family 'gauss'; known: bernoulli, beta, binomial, .*, gaussian, "):
        families.get("gauss")


@pytest.mark.parametrize("call", ["valid", "intercept", "distribution", "mean", "weight", "score", "log_prob", "draw"])
def test_a_new_family_is_told_what_it_lacks(call: str) -> None:
    from bmtl.families import Family

    class Empty(Family):
        name = "empty"

    n = {"valid": 1, "intercept": 1, "score": 3, "log_prob": 3}.get(call, 4)
    with pytest.raises(TypeError, match="Empty does not define its"):
        getattr(Empty(), call)(*[np.ones(2)] * n)
