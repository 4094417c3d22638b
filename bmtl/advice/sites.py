"""One task as a Gaussian regression, whatever its family: Laplace sites, and its evidence under a kernel.

A likelihood is replaced by pseudo-observations ``z`` of the linear predictor with precisions ``W / σ²``: for a
Gaussian the outcomes themselves (a lognormal's logs), for Student-t the EM weights (ν + 1) / (ν + r² / σ²) and for
Laplace 1 / max(|r|/σ, ½), for the others the working response z = η + score / W with the Fisher weight W, at the
posterior mode (Rasmussen & Williams 2006, section 3.4; McCullagh & Nelder 1989, section 2.5). The evidence of a kernel
is then that of a linear regression on its features.

The noise variance σ² of Gaussian, Student-t and Laplace outcomes is integrated out under the scale-free prior dσ/σ. The
noise parameters of the others are estimated at the fit; counts and the like also have a dispersion of at least one
estimated from the Pearson residuals, divided into W, so that overdispersion is not mistaken for signal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from bmtl.families import Family, Gamma, Tailed

Array = NDArray[np.float64]

#: Prior standard deviation of an intercept, in noise standard deviations.
INTERCEPT_SD = 10.0
N_NODES = 9
MIN_WEIGHT = 1e-8

#: Least residual, in scales, whose EM weight a Laplace task's sites have: their mean is then 1.35 times the Fisher
#: information of a cell, about that of a Student-t task's (1.4 times, with 4 degrees of freedom).
LEAST = 0.5


@dataclass(frozen=True)
class Sites:
    """Pseudo-observations of one task's linear predictor.

    Attributes
    ----------
    family : Family
        The likelihood.
    y, exposure : (n,) arrays
        Outcomes (on the family's modelling scale) and exposures.
    rows : (n,) int array
        Their rows.
    z, weight : (n,) arrays
        Pseudo-observations and their precisions, relative to 1 / σ² where ``free``.
    free : bool
        Whether a noise variance σ² is still to be integrated out (else it is 1).
    noise : float or array
        The family's noise parameter where the sites needed one.
    """

    family: Family
    y: Array
    exposure: Array
    rows: NDArray[np.intp]
    z: Array
    weight: Array
    free: bool
    noise: float | Array = 1.0

    @property
    def exact(self) -> bool:
        """Whether outcomes are Gaussian around the linear predictor on some scale: then sites approximate nothing."""
        return self.family.gaussian_scale(self.y) is not None

    @property
    def log_tau_prior(self) -> tuple[float, float]:
        """Mean and standard deviation of the log of τ = signal variance / noise variance.

        With a free noise, τ = R² / (1 − R²): centred on R² = .8, with its 95% between .2 and .99. Otherwise τ is the
        variance of the linear predictor, on the family's own scale.
        """
        if self.free:
            return 1.5, 1.5
        return 2.0 * float(np.log(0.8 * self.family.spread(self.y, self.exposure))), 1.3

    def take(self, index: NDArray[np.intp]) -> Sites:
        """The same task on some of its cells."""
        return replace(
            self, y=self.y[index], exposure=self.exposure[index], rows=self.rows[index],
            z=self.z[index], weight=self.weight[index],
        )


@dataclass(frozen=True)
class Single:
    """Evidence of one task under one kernel.

    Attributes
    ----------
    log_evidence : float
        Averaged over the prior of τ.
    log_tau : float
        Its posterior mean.
    mode : float
        Its node of highest posterior.
    """

    log_evidence: float
    log_tau: float
    mode: float


def _whitened_quadratics(G: Array, h: Array, zz: float, scale: Array) -> tuple[Array, Array]:
    """log |I + S G S| and z'Wz − h'S (I + S G S)⁻¹ S h for prior standard deviations S, one row of ``scale`` each."""
    m, p = scale.shape
    block = np.empty((m, p + 1, p + 1))
    block[:, :p, :p] = G * scale[:, :, None] * scale[:, None, :]
    block[:, np.arange(p), np.arange(p)] += 1.0
    block[:, p, :p] = block[:, :p, p] = h * scale
    # Bordered by h, the last diagonal entry of the factor is the square root of the residual form.
    block[:, p, p] = zz * (1 + 1e-12) + 1e-12
    diagonal = np.diagonal(np.linalg.cholesky(block), axis1=1, axis2=2)
    return 2.0 * np.log(diagonal[:, :p]).sum(axis=1), diagonal[:, p] ** 2


def _log_density(logdet: Array, quadratic: Array, n: int, free: bool) -> Array:
    """Log evidence from its determinant and quadratic form, σ integrated out under dσ/σ where free."""
    if free:
        return gammaln(n / 2) - 0.5 * n * np.log(np.pi * quadratic) - 0.5 * logdet - np.log(2.0)
    return -0.5 * (quadratic + logdet + n * np.log(2 * np.pi))


def null_evidence(sites: Sites) -> float:
    """Log evidence of the task without signal: an intercept alone."""
    w = sites.weight
    logdet, quadratic = _whitened_quadratics(
        np.array([[w.sum()]]), np.array([w @ sites.z]), float(w @ sites.z**2), np.array([[INTERCEPT_SD]])
    )
    return float(_log_density(logdet, quadratic, len(w), sites.free)[0])


def single_evidence(sites: Sites, phi: Array) -> Single:
    """Evidence of the task with the features ``phi`` (n, q), averaged over the prior of the signal-to-noise ratio."""
    X = np.hstack([np.ones((len(phi), 1)), phi])
    XW = X * sites.weight[:, None]
    mean, sd = sites.log_tau_prior
    log_tau = np.linspace(mean - 2.5 * sd, mean + 3.5 * sd, N_NODES)
    scale = np.broadcast_to(np.exp(0.5 * log_tau)[:, None], (N_NODES, X.shape[1])).copy()
    scale[:, 0] = INTERCEPT_SD
    logdet, quadratic = _whitened_quadratics(XW.T @ X, XW.T @ sites.z, float(sites.weight @ sites.z**2), scale)
    log_prior = -0.5 * ((log_tau - mean) / sd) ** 2
    log_joint = _log_density(logdet, quadratic, len(phi), sites.free) + log_prior
    top = log_joint.max()
    mass = np.exp(log_joint - top)
    return Single(
        float(top + np.log(mass.sum() / np.exp(log_prior).sum())),
        float(mass @ log_tau / mass.sum()),
        float(log_tau[log_joint.argmax()]),
    )


def initial_sites(family: Family, y: Array, rows: NDArray[np.intp], exposure: Array) -> Sites:
    """Sites at the fit without signal, where the search for kernels starts."""
    y = np.asarray(y, dtype=float)
    located = family.gaussian_scale(y)
    if located is not None:
        return Sites(family, y, exposure, rows, located - np.mean(located), np.ones(len(y)), True)
    if isinstance(family, Tailed):
        # Medians: outliers are why the family was chosen.
        z = y - np.median(y)
        spread = 1.4826 * np.median(np.abs(z))
        scale = float(spread) if spread > 0 else 1.0
        sites = Sites(family, y, exposure, rows, z / scale, np.ones(len(y)), True)
        return replace(sites, weight=_robust_weight(family, sites.z, 1.0))
    if isinstance(family, Gamma):
        # In units of their mean, so that the user's do not matter to the prior on the intercept.
        y = y / np.mean(y)
    eta = np.full(len(y), family.intercept(y, exposure)[0])
    noise = family.estimate_noise(y, eta, exposure)
    # Signal not yet fitted would count as dispersion, so counts and the like keep a free one until there is a fit.
    return _working_sites(family, y, rows, exposure, eta, noise, 1.0, family.dispersed)


def refined_sites(sites: Sites, phi: Array, n_rounds: int = 4, n_steps: int = 8) -> Sites:
    """Sites at the posterior mode under the features ``phi`` (n, q); Gaussian sites are what they are."""
    family = sites.family
    if sites.exact:
        return sites
    X = np.hstack([np.ones((len(phi), 1)), phi])
    for _ in range(n_rounds):
        log_tau = single_evidence(sites, phi).log_tau
        prior_precision = np.full(X.shape[1], np.exp(-log_tau))
        prior_precision[0] = INTERCEPT_SD**-2
        for _ in range(2 if isinstance(family, Tailed) else n_steps):
            XW = X * sites.weight[:, None]
            gram, h = XW.T @ X, XW.T @ sites.z
            sigma2 = 1.0
            if sites.free:
                solved = np.linalg.solve(gram + np.diag(prior_precision), h)
                sigma2 = float(sites.weight @ sites.z**2 - h @ solved) / len(phi)
            coefficient = np.linalg.solve(gram + np.diag(prior_precision), h)
            eta = X @ coefficient
            if isinstance(family, Tailed):
                sites = replace(sites, weight=_robust_weight(family, sites.z - eta, sigma2))
                continue
            noise = family.estimate_noise(sites.y, eta, sites.exposure)
            effective = float(np.trace(np.linalg.solve(gram + np.diag(prior_precision), gram)))
            dispersion = pearson_dispersion(family, sites.y, eta, noise, sites.exposure, effective)
            new = _working_sites(family, sites.y, sites.rows, sites.exposure, eta, noise, dispersion, False)
            settled = np.max(np.abs(new.z - sites.z) * np.sqrt(new.weight)) < 1e-6
            sites = new
            if settled:
                break
            # The ratio was relative to a free dispersion in the first step only.
            prior_precision[1:] = np.minimum(prior_precision[1:], 1e3)
    return sites


def _robust_weight(family: Tailed, residual: Array, sigma2: float) -> Array:
    """EM weights of residuals."""
    return family.pull(residual / np.sqrt(max(sigma2, 1e-12)), LEAST)


def _working_sites(
    family: Family, y: Array, rows: NDArray[np.intp], exposure: Array, eta: Array, noise: float | Array,
    dispersion: float, free: bool,
) -> Sites:
    eta = np.clip(eta, -25.0, 25.0)
    weight = np.maximum(family.weight(np, eta, noise, exposure), MIN_WEIGHT)
    z = eta + family.score(y, eta, noise, exposure) / weight
    return Sites(family, y, exposure, rows, z, weight / dispersion, free, noise)


def pearson_dispersion(
    family: Family, y: Array, eta: Array, noise: float | Array, exposure: Array, effective: float
) -> float:
    """Pearson dispersion of a fit with that many effective parameters, never below one; 1 if there can be none."""
    if not family.dispersed:
        return 1.0
    weight = np.maximum(family.weight(np, eta, noise, exposure), MIN_WEIGHT)
    pearson = float(np.sum(family.score(y, eta, noise, exposure) ** 2 / weight))
    return max(1.0, pearson / max(len(y) - effective, 1.0))
