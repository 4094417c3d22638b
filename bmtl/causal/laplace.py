"""The evidence of a task that is not Gaussian, by Laplace's method around its fit on the parents and all inputs.

Coefficients of standardised columns are normal around 0: on the scale of the linear predictor with the family's usual
spread, those of a task with heavy tails in units of its noise, with the same prior as a Gaussian task's. Noise
parameters of generalised linear models are estimated at each fit. Families whose outcomes may vary more than they say
(counts above all) have their log-likelihoods divided by the Pearson dispersion, at least 1, of the fit on everything
(McCullagh & Nelder, Generalized Linear Models, 1989, section 9.2): overdispersion would else count as signal of any
parent.

Inputs that are left out are taken out of the quadratic form at the mode, so that one fit serves all sets of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lgamma, log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bmtl.advice.sites import MIN_WEIGHT, pearson_dispersion
from bmtl.causal.normal import FREEDOM, MEAN_CELLS, PRECISION, precisions, subset_forms
from bmtl.causal.subsets import Array
from bmtl.families import Family, Tailed

LOG_2PI = log(2 * pi)
N_NEWTON = 40
N_NOISE = 6
MAX_PREDICTOR = 25.0

LEAST = 1e-3
"""Least residual, in scales, with a weight of its own in the search for a mode: a Laplace task's have no bound."""


def model(family: Family, y: Array, z: Array, exposure: Array, everything: Array) -> Model:
    """The model of one task's cells.

    Parameters
    ----------
    y, z, exposure : (n,) arrays
        Outcomes in the user's units and standardised, and exposures.
    everything : (n, p) array
        All other tasks and inputs, on whose fit a dispersion is estimated.
    """
    if isinstance(family, Tailed):
        return Robust(z, family)
    return Generalised.of(family, y, exposure, everything)


@dataclass(frozen=True, eq=False)
class Form:
    """A log joint density as a quadratic form around its mode, with blocks of coefficients that may be left out.

    Attributes
    ----------
    mode : (p,) array
        Of the parameters: the logarithm of the noise relative to its mode (0) if that is one, then coefficients, those
        that are always there first.
    log_joint : float
        At the mode.
    H : (p, p) array
        Negative Hessian there.
    n_base : int
        Parameters that are always there.
    sizes : sequence of g ints
        Of the blocks.
    log_norms : sequence of g floats
        Log prior density of each block at zero, which a block that is left out does not pay.
    noise : float or array
        At the mode.
    free_noise : bool
        Whether the first parameter is that of the noise.
    """

    mode: Array
    log_joint: float
    H: Array
    n_base: int
    sizes: Sequence[int]
    log_norms: Sequence[float]
    noise: float | Array
    free_noise: bool = False

    def log_evidences(self) -> Array:
        """Log evidence of every set of blocks, (2^g,)."""
        border = self.H @ self.mode
        A = np.block([[self.H, border[:, None]], [border[None, :], np.array([[self.mode @ border]])]])
        n = self.n_base
        base, rest = A[:n, :n], A[n:, n:] - A[n:, :n] @ np.linalg.solve(A[:n, :n], A[:n, n:])
        log_det, corner = subset_forms(rest, self.sizes)
        log_det = log_det + np.linalg.slogdet(base)[1]
        q, paid = np.full(1, n), np.full(1, -sum(self.log_norms))
        for size, log_norm in zip(self.sizes, self.log_norms, strict=True):
            q, paid = np.concatenate([q, q + size]), np.concatenate([paid, paid + log_norm])
        value: Array = self.log_joint - 0.5 * corner - 0.5 * log_det + 0.5 * q * LOG_2PI + paid
        return value

    def draw(self, used: NDArray[np.int64], m: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Intercepts (m,), slopes (m, k + len(used)) of parents and of some columns of inputs, and noises (m, …)."""
        kept = np.concatenate([np.arange(self.n_base), self.n_base + used])
        factor = np.linalg.cholesky(self.H[np.ix_(kept, kept)])
        # Given zeros for the others, the mode of the rest is where the form's derivative vanishes.
        centre = np.linalg.solve(factor.T, np.linalg.solve(factor, (self.H @ self.mode)[kept]))
        drawn = centre + np.linalg.solve(factor.T, rng.normal(size=(len(kept), m))).T
        noise = np.broadcast_to(self.noise, (m, *np.shape(self.noise)))
        if self.free_noise:
            noise, drawn = noise * np.exp(drawn[:, 0]), drawn[:, 1:]
        return drawn[:, 0], drawn[:, 1:], noise


class Model:
    """A task whose posterior given some columns is approximated."""

    def form(self, parents: Array, inputs: Array, sizes: Sequence[int]) -> Form:
        """Its log joint density given parents (n, k) and groups of inputs (n, q) of these sizes."""
        raise TypeError(f"{type(self).__name__} does not define its form")

    def log_evidence(self, parents: Array, inputs: Array, sizes: Sequence[int], log_prior: Array) -> float:
        """Log evidence given parents (n, k), averaged over which groups of inputs (n, q) act.

        Parameters
        ----------
        sizes : sequence of g ints
            Columns of each group.
        log_prior : (2^g,) array
            Of each set of groups.
        """
        return float(logsumexp(self.form(parents, inputs, sizes).log_evidences() + log_prior))


@dataclass(frozen=True, eq=False)
class Generalised(Model):
    """A generalised linear model.

    Attributes
    ----------
    family : Family
    y, exposure : (n,) arrays
    loc, scale : float
        Prior of the intercept.
    spread : float
        Prior standard deviation of a standardised column's coefficient.
    dispersion : float
        What log-likelihoods are divided by.
    """

    family: Family
    y: Array
    exposure: Array
    loc: float
    scale: float
    spread: float
    dispersion: float = 1.0

    @classmethod
    def of(cls, family: Family, y: Array, exposure: Array, everything: Array) -> Generalised:
        loc, scale = family.intercept(y, exposure)
        spread = family.spread(y, exposure)
        alone = cls(family, y, exposure, float(np.asarray(loc)), float(scale), float(spread))
        return alone._dispersed(everything) if family.dispersed else alone

    def _dispersed(self, everything: Array) -> Generalised:
        X, centre, precision = self._design(everything, np.full(everything.shape[1], self.spread**-2))
        beta, noise = self._mode(X, centre, precision)
        eta = (X @ beta).clip(-MAX_PREDICTOR, MAX_PREDICTOR)
        information = self._information(X, eta, noise, precision)
        effective = float(np.trace(np.linalg.solve(information, information - np.diag(precision))))
        found = pearson_dispersion(self.family, self.y, eta, noise, self.exposure, effective)
        return replace(self, dispersion=found)

    def _design(self, columns: Array, precision: Array) -> tuple[Array, Array, Array]:
        """Columns with an intercept, and the prior means and precisions of their coefficients."""
        X = np.hstack([np.ones((len(columns), 1)), columns])
        centre = np.zeros(X.shape[1])
        centre[0] = self.loc
        return X, centre, np.concatenate([[self.scale**-2], precision])

    def _log_joint(self, X: Array, beta: Array, noise: Any, centre: Array, precision: Array) -> float:
        """Up to the constant of the prior."""
        eta = (X @ beta).clip(-MAX_PREDICTOR, MAX_PREDICTOR)
        fit = float(np.sum(self.family.log_prob(self.y, eta, noise, self.exposure))) / self.dispersion
        return fit - 0.5 * float(precision @ (beta - centre) ** 2)

    def _information(self, X: Array, eta: Array, noise: Any, precision: Array) -> Array:
        weight = np.maximum(self.family.weight(np, eta, noise, self.exposure), MIN_WEIGHT) / self.dispersion
        return (X * weight[:, None]).T @ X + np.diag(precision)

    def _mode(self, X: Array, centre: Array, precision: Array) -> tuple[Array, Any]:
        """Coefficients at the posterior mode by Fisher scoring, and the noise estimated there."""
        beta = centre.copy()
        noise = self.family.estimate_noise(self.y, X @ beta, self.exposure)
        for _ in range(N_NOISE if self.family.noise_name else 1):
            beta = self._scored(X, beta, noise, centre, precision)
            before = noise
            noise = self.family.estimate_noise(self.y, X @ beta, self.exposure)
            if np.allclose(noise, before, rtol=1e-6, atol=0.0):
                break
        return beta, noise

    def _scored(self, X: Array, beta: Array, noise: Any, centre: Array, precision: Array) -> Array:
        value = self._log_joint(X, beta, noise, centre, precision)
        for _ in range(N_NEWTON):
            eta = (X @ beta).clip(-MAX_PREDICTOR, MAX_PREDICTOR)
            score = self.family.score(self.y, eta, noise, self.exposure) / self.dispersion
            gradient = X.T @ score - precision * (beta - centre)
            step = np.linalg.solve(self._information(X, eta, noise, precision), gradient)
            gain = float(gradient @ step)
            # Half steps until the density rises.
            for _ in range(20):
                tried = self._log_joint(X, beta + step, noise, centre, precision)
                if tried >= value - 1e-10 * abs(value):
                    break
                step *= 0.5
            else:
                return beta
            beta, value = beta + step, tried
            if gain < 1e-10:
                break
        return beta

    def form(self, parents: Array, inputs: Array, sizes: Sequence[int]) -> Form:
        k = parents.shape[1]
        own = np.concatenate([np.full(size, size / self.spread**2) for size in sizes] or [np.empty(0)])
        X, centre, precision = self._design(
            np.hstack([parents, inputs]), np.concatenate([np.full(k, self.spread**-2), own])
        )
        beta, noise = self._mode(X, centre, precision)
        H = self._information(X, (X @ beta).clip(-MAX_PREDICTOR, MAX_PREDICTOR), noise, precision)
        log_joint = self._log_joint(X, beta, noise, centre, precision)
        log_joint += 0.5 * float(np.sum(np.log(precision) - LOG_2PI))
        norms = [0.5 * size * (log(size / self.spread**2) - LOG_2PI) for size in sizes]
        return Form(beta, log_joint, H, 1 + k, sizes, norms, noise)


@dataclass(frozen=True, eq=False)
class Robust(Model):
    """A task whose noise is not normal: its tails tell cause from effect, where they are heavy.

    Priors are those of `bmtl.causal.normal`, whose degrees of freedom count parents and not the inputs that act.

    Attributes
    ----------
    z : (n,) array
        Standardised outcomes.
    family : Tailed
    """

    z: Array
    family: Tailed

    def form(self, parents: Array, inputs: Array, sizes: Sequence[int]) -> Form:
        k, n = parents.shape[1], len(self.z)
        X = np.hstack([np.ones((n, 1)), parents, inputs])
        precision = np.append(MEAN_CELLS, precisions([*[1] * k, *sizes]))
        freedom = FREEDOM + 1 + k
        beta, variance = self._mode(X, precision, freedom)
        sigma = float(np.sqrt(variance))
        u = (self.z - X @ beta) / sigma
        penalty = float(precision @ beta**2) / variance
        log_joint = float(np.sum(self.family.log_prob(u, np.zeros(n), 1.0))) - n * log(sigma)
        log_joint += 0.5 * float(np.sum(np.log(precision / variance) - LOG_2PI)) - 0.5 * penalty
        log_joint += log(2.0) + 0.5 * freedom * log(PRECISION / 2) - lgamma(freedom / 2) - freedom * log(sigma)
        log_joint -= 0.5 * PRECISION / variance
        # Parameters: log σ, then coefficients, whose observed information may be indefinite far from the mode only.
        H, bend = self._expected(X, precision, variance), self.family.bend(u)
        if bend is not None:
            turn = bend * u + self.family.pull(u, LEAST) * u
            observed = np.empty_like(H)
            observed[1:, 1:] = ((X * bend[:, None]).T @ X + np.diag(precision)) / variance
            observed[0, 1:] = observed[1:, 0] = X.T @ turn / sigma - 2 * precision * beta / variance
            observed[0, 0] = float(turn @ u) + 2 * (penalty + PRECISION / variance)
            H = observed if np.linalg.eigvalsh(observed)[0] > 0 else H
        norms = [0.5 * size * (log(PRECISION * size / variance) - LOG_2PI) for size in sizes]
        # log σ is no coefficient: nothing shrinks it to zero, so the form is taken around its mode.
        mode = np.concatenate([[0.0], beta])
        return Form(mode, log_joint, H, 2 + k, sizes, norms, sigma, free_noise=True)

    def _mode(self, X: Array, precision: Array, freedom: int) -> tuple[Array, float]:
        """Coefficients and σ² at the mode over them and log σ, by expectation and maximisation."""
        n = len(self.z)
        weight: Array = np.ones(n)
        beta: Array = np.zeros(X.shape[1])
        variance = 1.0
        for _ in range(500):
            XW = X * weight[:, None]
            beta[:] = np.linalg.solve(XW.T @ X + np.diag(precision), XW.T @ self.z)
            residual: Array = self.z - X @ beta
            before = variance
            variance = float(weight @ residual**2 + precision @ beta**2 + PRECISION) / (n + len(beta) + freedom)
            weight = self.family.pull(residual / np.sqrt(variance), LEAST)
            if abs(variance - before) < 1e-9 * variance:
                break
        return beta, variance

    def _expected(self, X: Array, precision: Array, variance: float) -> Array:
        """Expected information, for where the observed one is not positive."""
        H = np.zeros((X.shape[1] + 1, X.shape[1] + 1))
        H[1:, 1:] = (self.family.information * X.T @ X + np.diag(precision)) / variance
        H[0, 0] = self.family.scale_information * len(self.z)
        return H
