"""The evidence of a pair, its leave-one-out, and its single-task parts, against dense computations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate as quadrature
from scipy.stats import multivariate_normal

from bmtl.advice.leave_out import leave_one_out
from bmtl.advice.pair import informative, integrate, log_evidence, noise_forms, pair_stats, posterior
from bmtl.advice.sites import INTERCEPT_SD, Sites, null_evidence, single_evidence
from bmtl.families import Bernoulli, Gaussian

RHO, R, LOG_TAU = 0.6, 0.35, np.array([0.4, 1.1])


def problem(seed=0, n=(13, 11), n_both=6, q=3, free=True, family=None):
    """Two tasks with unequal weights that share some of their rows."""
    rng = np.random.default_rng(seed)
    rows = [np.arange(n[0]), np.arange(n[0] - n_both, n[0] - n_both + n[1])]
    table = rng.normal(size=(rows[1][-1] + 1, q))
    family = family or Gaussian()
    sites = [
        Sites(family, z, np.ones(m), r, z, rng.uniform(0.5, 2.0, m), free)
        for m, r in zip(n, rows, strict=True) for z in [rng.normal(size=m)]
    ]
    return sites, [table[r] for r in rows]


def dense_covariance(sites, phi, log_tau, rho, r, sigma, related=None):
    """Covariance of all pseudo-observations, written out; only the first ``related`` features are correlated."""
    amplitude = np.asarray(sigma) * np.exp(0.5 * log_tau)
    B = np.outer(amplitude, amplitude) * np.array([[1, rho], [rho, 1]])
    blocks = [[None, None], [None, None]]
    for i in (0, 1):
        for j in (0, 1):
            noise = sigma[i] * sigma[j] / np.sqrt(np.outer(sites[i].weight, sites[j].weight))
            same = sites[i].rows[:, None] == sites[j].rows
            k = None if i == j else related
            blocks[i][j] = B[i, j] * phi[i][:, :k] @ phi[j][:, :k].T + same * noise * (1.0 if i == j else r)
            if i == j:
                blocks[i][j] = blocks[i][j] + (INTERCEPT_SD * sigma[i]) ** 2
    return np.block(blocks)


def dense_log_density(sites, phi, log_tau, rho, r, sigma, related=None):
    z = np.concatenate([s.z for s in sites])
    constant = 0.5 * sum(np.log(s.weight).sum() for s in sites)
    return multivariate_normal(cov=dense_covariance(sites, phi, log_tau, rho, r, sigma, related)).logpdf(z) - constant


@pytest.mark.parametrize("rho", [-1.0, 0.0, RHO, 1.0])
@pytest.mark.parametrize("r", [0.0, R])
@pytest.mark.parametrize("related", [None, 2], ids=["all", "two of three"])
def test_evidence_equals_dense_density(rho, r, related):
    sites, phi = problem()
    sigma = np.array([0.8, 1.3])
    stats = pair_stats(*sites, *phi, n_related=related)
    logdet, T = noise_forms(stats, LOG_TAU[None], np.array([rho]), np.array([r]))
    n = np.array([len(s.z) for s in sites])
    ours = -0.5 * (n.sum() * np.log(2 * np.pi) + logdet[0] + (1 / sigma) @ T[0] @ (1 / sigma)) - n @ np.log(sigma)
    assert ours == pytest.approx(dense_log_density(sites, phi, LOG_TAU, rho, r, sigma, related), abs=1e-7)


def test_noises_are_integrated_out():
    # Laplace in two log standard deviations: its error is that of Stirling's formula and cancels between values of ρ.
    sites, phi = problem(n=(40, 36), n_both=20)
    s = pair_stats(*sites, *phi)
    grid = np.linspace(-0.9, 0.9, 91)
    exact = []
    for rho in (0.0, 0.9):
        logdet, T = noise_forms(s, LOG_TAU[None], np.array([rho]), np.array([0.2]))
        u, v = np.meshgrid(np.exp(grid), np.exp(grid), indexing="ij")
        form = T[0, 0, 0] * u**2 + 2 * T[0, 0, 1] * u * v + T[0, 1, 1] * v**2
        log_f = s.n[0] * np.log(u) + s.n[1] * np.log(v) - 0.5 * form - 0.5 * logdet[0]
        exact.append(np.log(quadrature.trapezoid(quadrature.trapezoid(np.exp(log_f - log_f.max()), grid), grid))
                     + log_f.max())
    ours = log_evidence(s, np.tile(LOG_TAU, (2, 1)), np.array([0.0, 0.9]), np.full(2, 0.2))
    assert ours[1] - ours[0] == pytest.approx(exact[1] - exact[0], abs=0.02)


def test_laplace_over_amplitudes_matches_quadrature():
    rng = np.random.default_rng(1)
    sites, phi = problem(n=(60, 60), n_both=0, q=5)
    w = rng.normal(size=5)
    sites = [Sites(s.family, s.y, s.exposure, s.rows, p @ w + 0.5 * s.z, s.weight, True)
             for s, p in zip(sites, phi, strict=True)]
    s = pair_stats(*sites, *phi)
    rho = np.array([0.0, 0.7, 1.0])
    ours = integrate(s, rho, np.array([1.0, 1.0]), None)
    tau = np.linspace(-3.0, 7.0, 121)
    x, y = np.meshgrid(tau, tau, indexing="ij")
    log_prior = -0.5 * (((x - s.prior[0, 0]) / s.prior[0, 1]) ** 2 + ((y - s.prior[1, 0]) / s.prior[1, 1]) ** 2)
    exact = []
    for value in rho:
        f = log_evidence(s, np.column_stack([x.ravel(), y.ravel()]), np.full(x.size, value), np.zeros(x.size))
        f = f.reshape(x.shape) + log_prior
        exact.append(np.log(quadrature.trapezoid(quadrature.trapezoid(np.exp(f - f.max()), tau), tau)) + f.max())
    assert np.diff(ours.log_evidence) == pytest.approx(np.diff(exact), abs=0.15)


@pytest.mark.parametrize("r", [0.0, R])
def test_leave_one_out_equals_refitting(r):
    sites, phi = problem(free=True)
    s = pair_stats(*sites, *phi)
    found = np.concatenate(leave_one_out(*sites, *phi, s, LOG_TAU, RHO, r))
    sigma = 1 / posterior(s, LOG_TAU, RHO, r).u
    C = dense_covariance(sites, phi, LOG_TAU, RHO, r, sigma)
    z = np.concatenate([t.z for t in sites])
    for i in range(len(z)):
        others = np.delete(np.arange(len(z)), i)
        gain = np.linalg.solve(C[np.ix_(others, others)], C[others, i])
        mean, variance = gain @ z[others], C[i, i] - gain @ C[others, i]
        expected = -0.5 * (np.log(2 * np.pi * variance) + (z[i] - mean) ** 2 / variance)
        assert found[i] == pytest.approx(expected, abs=1e-8)


def test_single_evidence_of_fixed_noise_matches_dense():
    sites, phi = problem(free=False, family=Bernoulli())
    a = sites[0]
    mean, sd = a.log_tau_prior
    nodes = np.linspace(mean - 2.5 * sd, mean + 3.5 * sd, 9)
    weight = np.exp(-0.5 * ((nodes - mean) / sd) ** 2)
    dense = [
        multivariate_normal(
            cov=np.exp(t) * phi[0] @ phi[0].T + INTERCEPT_SD**2 + np.diag(1 / a.weight)
        ).logpdf(a.z) - 0.5 * np.log(a.weight).sum()
        for t in nodes
    ]
    expected = np.log(np.exp(dense) @ weight / weight.sum())
    assert single_evidence(a, phi[0]).log_evidence == pytest.approx(expected, abs=1e-8)
    flat = multivariate_normal(cov=INTERCEPT_SD**2 + np.diag(1 / a.weight)).logpdf(a.z)
    assert null_evidence(a) == pytest.approx(flat - 0.5 * np.log(a.weight).sum(), abs=1e-8)


def test_uninformative_directions_are_dropped():
    sites, phi = problem(q=3)
    idle = [np.hstack([p, np.full((len(p), 1), 1e-4) * p[:, :1]]) for p in phi]
    reduced = informative(*sites, *idle, LOG_TAU)
    assert reduced[0].shape[1] == 3
    arguments = LOG_TAU[None], np.array([RHO]), np.array([R])
    full = log_evidence(pair_stats(*sites, *phi), *arguments)
    assert log_evidence(pair_stats(*sites, *reduced), *arguments) == pytest.approx(full, abs=1e-4)
