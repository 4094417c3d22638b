"""Evidence of two tasks together, from sufficient statistics, and closed-form leave-one-cell-out.

Both tasks are linear in features, z_a = α_a + φ'w_a + noise, with
    (w_a, w_b) ~ N(0, B ⊗ I),   B = [[a², ρab], [ρab, b²]],
and the noises of two cells on one row have correlation r once divided by their standard deviations. ρ = ±1 is one
function with a free scale, ρ = 0 two unrelated functions of the same kernel. Equivalently f_b / b = ρ f_a / a +
√(1 − ρ²) g, where the remainder g may also have a kernel of its own. Rows enter through Gram matrices only, so that
nothing below depends on their number.

Noise standard deviations σ and intercepts are integrated out; the two signal-to-noise ratios τ = a² / σ² and r are
integrated by Laplace's method around their mode, found afresh for every ρ, so that Bayes factors between values of ρ
carry the right Occam factors (MacKay 2003, Information Theory, Inference, and Learning Algorithms, chapters 27–28).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmtl.advice.sites import INTERCEPT_SD, Sites

Array = NDArray[np.float64]

#: Prior probability that the noises of two tasks on the same rows are uncorrelated.
P_UNCORRELATED = 0.5
N_NEWTON = 7
N_CHUNK = 12
#: Directions with less information than this, relative to their prior, do not matter to any Bayes factor.
MIN_INFORMATION = 0.1
LOG_TAU_LIMITS = (-12.0, 14.0)


@dataclass(frozen=True)
class PairStats:
    """Sufficient statistics of two tasks under given features (p of them with the intercept, first).

    Task a has the design X_a (n_a, p); task b has X_b (n_b, 2p), the features that carry what it shares with task a
    and those of its remainder, which are the same when one kernel serves both.

    Attributes
    ----------
    A_only, A_both : (p, p) arrays
        X_a'W_a X_a over the rows that only this task, or both tasks, were observed on.
    B_only, B_both : (2p, 2p) arrays
        The same of task b.
    C_both : (p, 2p) array
        X_a' √W_a √W_b X_b over the rows of both.
    h_a_only, h_a_both, h_b_only, h_b_both : (p,) and (2p,) arrays
        X'Wz of each task.
    h_a_cross, h_b_cross : (p,) and (2p,) arrays
        X_a' √W_a √W_b z_b and X_b' √W_b √W_a z_a.
    zz_only, zz_both : (2,) arrays
        z'Wz; ``zz_cross`` is z_a' √W_a √W_b z_b.
    n : (2,) array
        Cells; ``n_both`` rows are shared.
    free : tuple of two bool
        Whether each task's noise variance is unknown.
    prior : (2, 2) array
        Mean and standard deviation of each task's log τ.
    related : (p,) array
        1 for features whose coefficients have correlation ρ, 0 for others.
    """

    A_only: Array
    A_both: Array
    B_only: Array
    B_both: Array
    C_both: Array
    h_a_only: Array
    h_a_both: Array
    h_b_only: Array
    h_b_both: Array
    h_a_cross: Array
    h_b_cross: Array
    zz_only: Array
    zz_both: Array
    zz_cross: float
    n: Array
    n_both: int
    free: tuple[bool, bool]
    prior: Array
    related: Array


def informative(a: Sites, b: Sites, phi_a: Array, phi_b: Array, log_tau: Array) -> tuple[Array, Array]:
    """Features of one kernel, (n_a, q) and (n_b, q), rotated to the directions that the data say anything about."""
    gram = sum(
        np.exp(t) * (phi * sites.weight[:, None]).T @ phi
        for t, sites, phi in zip(log_tau, (a, b), (phi_a, phi_b), strict=True)
    )
    values, vectors = np.linalg.eigh(gram)
    keep = vectors[:, values > min(MIN_INFORMATION, 0.5 * values[-1])]
    return phi_a @ keep, phi_b @ keep


def designs(phi_a: Array, phi_b: Array, carried: Array | None = None) -> tuple[Array, Array]:
    """Designs (n_a, p) and (n_b, 2p) with intercepts first.

    Parameters
    ----------
    phi_a, phi_b : (n_a, q), (n_b, q') arrays
        Features of each task, on its own cells; the narrower are padded with zeros.
    carried : (n_b, q) array, optional
        Task a's features on task b's cells; ``phi_b`` if one kernel serves both.
    """
    q = max(phi_a.shape[1], phi_b.shape[1])
    X = [
        np.hstack([np.ones((len(f), 1)), f, np.zeros((len(f), q - f.shape[1]))])
        for f in (phi_a, phi_b if carried is None else carried, phi_b)
    ]
    return X[0], np.hstack(X[1:])


def pair_stats(
    a: Sites, b: Sites, phi_a: Array, phi_b: Array, carried: Array | None = None, n_related: int | None = None
) -> PairStats:
    """Sufficient statistics of two tasks; the features are those of `designs`, the first ``n_related`` correlated."""
    X = designs(phi_a, phi_b, carried)
    # Intercepts have nothing in common.
    related = np.zeros(X[0].shape[1])
    related[1 : None if n_related is None else 1 + n_related] = 1.0
    _, in_a, in_b = np.intersect1d(a.rows, b.rows, assume_unique=True, return_indices=True)
    gram, h, zz = [], [], []
    for design, sites, both in zip(X, (a, b), (in_a, in_b), strict=True):
        only = np.setdiff1d(np.arange(len(sites.rows)), both, assume_unique=True)
        for cells in (only, both):
            weighted = design[cells] * sites.weight[cells, None]
            gram.append(weighted.T @ design[cells])
            h.append(weighted.T @ sites.z[cells])
            zz.append(float(sites.weight[cells] @ sites.z[cells] ** 2))
    root_a, root_b = np.sqrt(a.weight[in_a]), np.sqrt(b.weight[in_b])
    Xa, Xb = X[0][in_a] * root_a[:, None], X[1][in_b] * root_b[:, None]
    za, zb = a.z[in_a] * root_a, b.z[in_b] * root_b
    return PairStats(
        A_only=gram[0], A_both=gram[1], B_only=gram[2], B_both=gram[3], C_both=Xa.T @ Xb,
        h_a_only=h[0], h_a_both=h[1], h_b_only=h[2], h_b_both=h[3], h_a_cross=Xa.T @ zb, h_b_cross=Xb.T @ za,
        zz_only=np.array([zz[0], zz[2]]), zz_both=np.array([zz[1], zz[3]]), zz_cross=float(za @ zb),
        n=np.array([len(a.rows), len(b.rows)], dtype=float), n_both=len(in_a), free=(a.free, b.free),
        prior=np.array([a.log_tau_prior, b.log_tau_prior]), related=related,
    )


def _roots(related: Array, log_tau: Array, rho: Array) -> tuple[Array, Array]:
    """Prior standard deviations of X_a's (m, p) and X_b's (m, 2p) coefficients on e ~ N(0, I), in units of the noise.

    Task a is X_a D_a e₁ and task b is X_b (D_b R e₁, D_b √(I − R²) e₂) with R = ρ on the diagonal where features are
    related.
    """
    D = np.repeat(np.exp(0.5 * log_tau)[:, :, None], len(related), axis=2)
    D[:, :, 0] = INTERCEPT_SD
    R = rho[:, None] * related
    return D[:, 0], np.hstack([D[:, 1] * R, D[:, 1] * np.sqrt(np.maximum(1 - R**2, 0.0))])


def _assemble(s: PairStats, log_tau: Array, rho: Array, r: Array) -> Array:
    """The precision of e, bordered by the right-hand sides that multiply 1 / σ_a and 1 / σ_b, (m, 2p + 2, 2p + 2)."""
    m, p = len(rho), len(s.A_only)
    k, c = 1 / (1 - r**2), -r / (1 - r**2)
    Sa, Sb = _roots(s.related, log_tau, rho)
    block = np.empty((m, 2 * p + 2, 2 * p + 2))
    inner = block[:, :-2, :-2]
    np.multiply(Sb[:, :, None], Sb[:, None, :], out=inner)
    inner *= s.B_only + k[:, None, None] * s.B_both
    inner[:, :p, :p] += (s.A_only + k[:, None, None] * s.A_both) * Sa[:, :, None] * Sa[:, None, :]
    if r.any():
        C = (c[:, None, None] * s.C_both) * Sa[:, :, None] * Sb[:, None, :]
        inner[:, :p] += C
        inner[:, :, :p] += C.transpose(0, 2, 1)
    inner[:, np.arange(2 * p), np.arange(2 * p)] += 1.0
    block[:, -2, :-2] = c[:, None] * s.h_b_cross * Sb
    block[:, -1, :-2] = (s.h_b_only + k[:, None] * s.h_b_both) * Sb
    block[:, -2, :p] += (s.h_a_only + k[:, None] * s.h_a_both) * Sa
    block[:, -1, :p] += c[:, None] * s.h_a_cross * Sa
    block[:, :-2, -2:] = block[:, -2:, :-2].transpose(0, 2, 1)
    block[:, [-2, -1], [-2, -1]] = (s.zz_only + k[:, None] * s.zz_both) * (1 + 1e-12) + 1e-12
    block[:, -1, -2] = block[:, -2, -1] = c * s.zz_cross
    return block


def noise_forms(s: PairStats, log_tau: Array, rho: Array, r: Array) -> tuple[Array, Array]:
    """log |covariance| at unit noise and T, (m,) and (m, 2, 2): the quadratic form is u'Tu with u = 1 / σ.

    Weights of sites enter the determinant as a constant and are left out.
    """
    logdet, corner = np.empty(len(rho)), np.empty((len(rho), 2, 2))
    # In pieces that stay in cache.
    for first in range(0, len(rho), N_CHUNK):
        piece = slice(first, first + N_CHUNK)
        L = np.linalg.cholesky(_assemble(s, log_tau[piece], rho[piece], r[piece]))
        logdet[piece] = 2 * np.log(np.diagonal(L, axis1=1, axis2=2)[:, :-2]).sum(axis=1)
        corner[piece] = L[:, -2:, -2:]
    return logdet + s.n_both * np.log1p(-(r**2)), corner @ corner.transpose(0, 2, 1)


def _noise_mode(s: PairStats, T: Array) -> Array:
    """The u = 1 / σ that maximises Σ n log u − ½ u'Tu over the unknown noises, (m, 2); a concave problem."""
    free = np.array(s.free)
    diagonal = np.diagonal(T, axis1=1, axis2=2)
    u = np.where(free, np.sqrt(s.n / diagonal), 1.0)
    if not free.any():
        return u
    for _ in range(12):
        Tu = np.einsum("mij,mj->mi", T, u)
        gradient = np.where(free, s.n - u * Tu, 0.0)
        # In log u, with the curvature n + T u² kept positive definite whatever the sign of T_ab.
        H = T * u[:, :, None] * u[:, None, :]
        H[:, [0, 1], [0, 1]] += np.maximum(u * Tu, 0.5 * s.n)
        H[:, 0, 1] *= free.all()
        H[:, 1, 0] *= free.all()
        step = np.linalg.solve(H, gradient[:, :, None])[:, :, 0]
        u = u * np.exp(np.clip(step, -1.0, 1.0))
        if np.abs(step).max() < 1e-10:
            break
    return u


def log_evidence(s: PairStats, log_tau: Array, rho: Array, r: Array) -> Array:
    """Log evidence (m,) at given log τ (m, 2), ρ (m,) and r (m,), noises integrated out; a constant is left out."""
    logdet, T = noise_forms(s, log_tau, rho, r)
    u = _noise_mode(s, T)
    free = np.array(s.free)
    value = -0.5 * logdet - 0.5 * np.einsum("mi,mij,mj->m", u, T, u)
    if free.any():
        value = value + np.log(u[:, free]) @ s.n[free]
        H = T * u[:, :, None] * u[:, None, :]
        H[:, [0, 1], [0, 1]] += s.n
        value -= 0.5 * np.linalg.slogdet(H[:, free][:, :, free])[1]
    return value


@dataclass(frozen=True)
class Integrated:
    """Evidence at each of m values of ρ, the other parameters integrated out.

    Attributes
    ----------
    log_evidence : (m,) array
        Relative to the same constant as `log_evidence`.
    log_tau : (m, 2) array
        Mode.
    r : (m,) array
        Mode of the noise correlation (0 where it was held there).
    log_ratio, log_ratio_sd : (m,) arrays
        Posterior mode and standard deviation of log b / a.
    """

    log_evidence: Array
    log_tau: Array
    r: Array
    log_ratio: Array
    log_ratio_sd: Array


def integrate(s: PairStats, rho: Array, log_tau: Array, r: float | None) -> Integrated:
    """Laplace's method over the mean and half-difference of the log τ, and over r unless it is None (held at 0).

    Parameters
    ----------
    s : PairStats
    rho : (m,) array
    log_tau : (2,) array
        Where to start.
    r : float or None
        Where to start the noise correlation, whose prior is uniform on (−1, 1).
    """
    m, dim = len(rho), 2 if r is None else 3
    start = [log_tau.mean(), 0.5 * (log_tau[1] - log_tau[0])] + ([] if r is None else [np.arctanh(r)])
    centre = np.tile(np.array(start), (m, 1))
    axes, stencil = _stencil(dim)
    step = np.tile(np.array([0.3, 0.15, 0.15])[:dim], (m, 1))
    best, best_at = np.full(m, -np.inf), centre.copy()
    value, curvature, sd = np.empty(m), np.empty((m, dim)), np.empty((m, dim))
    # Values of ρ drop out as they converge.
    active = np.arange(m)
    for _ in range(N_NEWTON):
        x = centre[active, None, :] + stencil * step[active, None, :]
        f = _objective(s, x, rho[active])
        top = f.argmax(axis=1)
        highest = f[np.arange(len(active)), top]
        better = highest > best[active]
        best[active[better]] = highest[better]
        best_at[active[better]] = x[np.arange(len(active)), top][better]
        gradient, H = _derivatives(f, step[active], axes)
        values, vectors = np.linalg.eigh(H)
        # The prior alone has curvature of about this much; where the surface is flat or convex, step as if it had.
        values = np.maximum(values, 0.2)
        inverse = (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
        move = np.einsum("mij,mj->mi", inverse, gradient)
        spread = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
        # A bad step (the value fell well below the best seen) goes back to the best point and looks closer.
        lost = f[:, 0] < best[active] - 2.0
        gain = np.minimum(0.5 * np.einsum("mi,mi->m", gradient, move), 1.0)
        value[active] = np.where(lost, best[active], f[:, 0] + gain)
        curvature[active], sd[active] = values, spread
        centre[active] = np.where(lost[:, None], best_at[active], centre[active] + np.clip(move, -1.5, 1.5))
        step[active] = np.where(lost[:, None], 0.5 * step[active], np.clip(0.5 * spread, 2e-4, 0.4))
        active = active[lost | (np.abs(move) > 0.05 * spread).any(axis=1)]
        if len(active) == 0:
            break
    value = value + 0.5 * dim * np.log(2 * np.pi) - 0.5 * np.log(curvature).sum(axis=1)
    taus, corr = _parameters(centre)
    # The noises' own uncertainty is nearly the same for every amplitude, so it is not added to that of the ratio.
    u = _noise_mode(s, noise_forms(s, taus, rho, corr)[1])
    return Integrated(value, taus, corr, centre[:, 1] - np.log(u[:, 1] / u[:, 0]), sd[:, 1])


def _parameters(x: Array) -> tuple[Array, Array]:
    """Log τ (m, 2) and r (m,) of points (m, 2 or 3)."""
    taus = np.stack([x[:, 0] - x[:, 1], x[:, 0] + x[:, 1]], axis=1).clip(*LOG_TAU_LIMITS)
    return taus, np.tanh(x[:, 2]).clip(-0.999, 0.999) if x.shape[1] == 3 else np.zeros(len(x))


def _objective(s: PairStats, x: Array, rho: Array) -> Array:
    """Log joint density of the data and the parameters at points (m, k, dim), one ρ for each of m, (m, k)."""
    m, k, dim = x.shape
    taus, corr = _parameters(x.reshape(-1, dim))
    value = log_evidence(s, taus, np.repeat(rho, k), corr)
    value -= 0.5 * np.sum(((taus - s.prior[:, 0]) / s.prior[:, 1]) ** 2, axis=1)
    if dim == 3:
        # Uniform on (−1, 1), in terms of its inverse hyperbolic tangent.
        value += np.log((1 - corr**2) / 2)
    return value.reshape(m, k)


def _stencil(dim: int) -> tuple[list[tuple[int, int]], Array]:
    """Central differences: the centre, ± each axis, and four corners for each pair of axes.

    Nothing in it prefers a sign, so that results do not depend on the order of the tasks or their orientation.
    """
    e = np.eye(dim)
    axes = [(i, j) for i in range(dim) for j in range(i + 1, dim)]
    corners = [sign * e[i] + other * e[j] for i, j in axes for sign in (1, -1) for other in (1, -1)]
    return axes, np.vstack([np.zeros((1, dim)), e, -e, *corners])


def _derivatives(f: Array, step: Array, axes: list[tuple[int, int]]) -> tuple[Array, Array]:
    """Gradient (m, dim) and negative Hessian (m, dim, dim) from values on the stencil."""
    dim = step.shape[1]
    plus, minus = f[:, 1 : dim + 1], f[:, dim + 1 : 2 * dim + 1]
    H = np.zeros((len(f), dim, dim))
    H[:, np.arange(dim), np.arange(dim)] = (2 * f[:, [0]] - plus - minus) / step**2
    for k, (i, j) in enumerate(axes):
        corner = f[:, 2 * dim + 1 + 4 * k : 2 * dim + 5 + 4 * k]
        mixed = (corner[:, 0] - corner[:, 1] - corner[:, 2] + corner[:, 3]) / (4 * step[:, i] * step[:, j])
        H[:, i, j] = H[:, j, i] = -mixed
    return (plus - minus) / (2 * step), H


@dataclass(frozen=True)
class Posterior:
    """Posterior of a pair's standardised coefficients e (2p,) at given parameters.

    Attributes
    ----------
    mean : (2p,) array
    root : (2p, 2p) array
        K with covariance K Kᵀ.
    scale_a, scale_b : (p,) and (2p,) arrays
        Columns of the designs times these give each task's linear predictor in units of its noise.
    u : (2,) array
        Reciprocals of the noise standard deviations.
    """

    mean: Array
    root: Array
    scale_a: Array
    scale_b: Array
    u: Array


def posterior(s: PairStats, log_tau: Array, rho: float, r: float) -> Posterior:
    """Posterior at log τ (2,), ρ and r, with the noises at their mode."""
    arguments = s, log_tau[None], np.array([rho]), np.array([r])
    block = _assemble(*arguments)[0]
    u: Array = _noise_mode(s, noise_forms(*arguments)[1])[0]
    L = np.linalg.cholesky(block[:-2, :-2])
    half = np.linalg.solve(L, block[:-2, -2:] @ u)
    root = np.linalg.inv(L).T
    Sa, Sb = _roots(s.related, *arguments[1:3])
    return Posterior(root @ half, root, Sa[0], Sb[0], u)
