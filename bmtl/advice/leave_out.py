"""Closed-form leave-one-cell-out: what knowing another task adds to the predictions of one.

For jointly Gaussian pseudo-observations z with covariance C, the prediction of cell i from all others has mean
z_i − [C⁻¹z]_i / [C⁻¹]_ii and variance 1 / [C⁻¹]_ii (Sundararajan & Keerthi 2001, Neural Computation 13). By Woodbury
both cost O(q²) a cell. Without its own noise this is the cavity of the linear predictor, over which the likelihood
of the family is integrated by Gauss–Hermite quadrature (Vehtari et al. 2016, JMLR 17(103)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bmtl.advice.pair import Integrated, PairStats, designs, posterior
from bmtl.advice.sites import Sites
from bmtl.families import Tailed

Array = NDArray[np.float64]

N_HERMITE = 21


def leave_one_out(
    a: Sites, b: Sites, phi_a: Array, phi_b: Array, stats: PairStats, log_tau: Array, rho: float, r: float,
    carried: Array | None = None,
) -> tuple[Array, Array]:
    """Log predictive density of every cell of both tasks given all the others, (n_a,) and (n_b,).

    Parameters
    ----------
    a, b : Sites
    phi_a, phi_b : (n_a, q), (n_b, q) arrays
        Features of one kernel.
    stats : PairStats
        Of the same.
    log_tau : (2,) array
    rho, r : float
        Correlations of functions and of noises.
    carried : (n_b, q) array, optional
        As in `designs`.
    """
    fitted = posterior(stats, log_tau, rho, r)
    u = fitted.u
    _, in_a, in_b = np.intersect1d(a.rows, b.rows, assume_unique=True, return_indices=True)
    k, c = 1 / (1 - r**2), -r / (1 - r**2)
    # Square-root precisions of the noises. All that follows is in units of the noise.
    half = [u[t] * np.sqrt(sites.weight) for t, sites in enumerate((a, b))]
    X_a, X_b = designs(phi_a, phi_b, carried)
    wide_a = np.hstack([X_a * fitted.scale_a, np.zeros_like(X_a)])
    design = [wide_a * np.sqrt(a.weight)[:, None], X_b * fitted.scale_b * np.sqrt(b.weight)[:, None]]
    residual = [sites.z * h - X @ fitted.mean for sites, h, X in zip((a, b), half, design, strict=True)]
    found = []
    for t, (own, other) in enumerate(((in_a, in_b), (in_b, in_a))):
        diagonal = np.ones(len(half[t]))
        diagonal[own] = k
        both = design[t] * diagonal[:, None]
        both[own] += c * design[1 - t][other]
        precision = diagonal - np.sum((both @ fitted.root) ** 2, axis=1)
        weighted = diagonal * residual[t]
        weighted[own] += c * residual[1 - t][other]
        sites = (a, b)[t]
        centre = sites.z - weighted / precision / half[t]
        variance = 1 / (precision * half[t] ** 2)
        found.append(_predictive(sites, centre, variance, 1 / half[t] ** 2, float(u[t])))
    return found[0], found[1]


def _predictive(sites: Sites, mean: Array, variance: Array, own: Array, u: float) -> Array:
    """Log predictive density of outcomes from the predictions of their sites; ``own`` is the sites' noise variance."""
    family = sites.family
    if sites.exact:
        return -0.5 * (np.log(2 * np.pi * variance) + (sites.z - mean) ** 2 / variance)
    node, weight = np.polynomial.hermite_e.hermegauss(N_HERMITE)
    cavity = np.maximum(variance - own, 1e-12)
    eta = mean[:, None] + np.sqrt(cavity)[:, None] * node
    noise = 1 / u if isinstance(family, Tailed) else sites.noise
    y = sites.z if isinstance(family, Tailed) else sites.y
    density = family.log_prob(y[:, None], eta, noise, sites.exposure[:, None])
    return logsumexp(density, axis=1, b=weight / weight.sum())


def sharing_gain(
    a: Sites, b: Sites, phi_a: Array, phi_b: Array, stats: PairStats, rho: Array, fit: Integrated,
    log_bayes: Array, carried: Array | None = None,
) -> tuple[float, float, float, float]:
    """Gain of each task from the other, in nats over its cells, with standard errors.

    The predictions with sharing are averaged over the correlations ρ ≠ 0 by posterior probability; those without
    have ρ = 0. Both have the same noise correlation, so that predicting a cell from the noise of another task's cell
    on its row is no gain.

    Parameters
    ----------
    rho : (m,) array
        Nodes.
    fit : Integrated
        Modes at every node.
    log_bayes : (m,) array
        Log Bayes factors of the nodes.
    carried : (n_b, q) array, optional
        As in `designs`.

    Returns
    -------
    gain_a, se_a, gain_b, se_b : float
    """
    zero = int(np.flatnonzero(rho == 0)[0])
    related = np.flatnonzero(rho)
    log_weight = log_bayes[related] - logsumexp(log_bayes[related])
    related, log_weight = related[log_weight > -3.0], log_weight[log_weight > -3.0]

    def at(m: int) -> tuple[Array, Array]:
        return leave_one_out(a, b, phi_a, phi_b, stats, fit.log_tau[m], float(rho[m]), float(fit.r[m]), carried)

    alone = at(zero)
    together = [at(int(m)) for m in related]
    log_weight = log_weight - logsumexp(log_weight)
    found: list[float] = []
    for t in (0, 1):
        gain = logsumexp(np.stack([x[t] for x in together]) + log_weight[:, None], axis=0) - alone[t]
        found += [float(gain.sum()), float(np.sqrt(len(gain)) * gain.std(ddof=1))]
    return found[0], found[1], found[2], found[3]
