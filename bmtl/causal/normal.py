"""The evidence of a Gaussian task under every set of parents and inputs, in closed form.

All columns jointly are normal with a normal–Wishart prior whose parametric matrix T is diagonal: of a task given
columns Q (parents and inputs),
    σ² ~ IG(ν/2, t/2), ν = α + |Q| + 1,   coefficients ~ N(0, σ² T_QQ⁻¹),   intercept ~ N(0, σ²),
so that graphs of one Markov equivalence class have the same product of evidences if the same inputs are in it for all
tasks, none for example (Geiger & Heckerman, Annals of Statistics, 2002; Kuipers, Moffa & Heckerman, Annals of
Statistics, 2014). Columns are standardised by their sample, so that units do not matter. The prior of a column's
variance is set at 1 by t = 2: that is its geometric mean (2.07, to be exact). With t = ½, a usual choice, or t = 4 the
edges of standardised tasks are stated too seldom or too often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from bmtl.causal.subsets import Array

#: Prior degrees of freedom beyond the number of columns.
FREEDOM = 2
#: Prior precision t of a standardised column's coefficient, in units of the noise variance.
PRECISION = 2.0
#: Prior cells that speak for a mean of zero.
MEAN_CELLS = 1.0


def precisions(sizes: Sequence[int]) -> Array:
    """Prior precisions of the columns of groups of these sizes, whose functions have one variance whatever the size."""
    widths = np.asarray(sizes, dtype=np.int64)
    return np.repeat(PRECISION * widths, widths)


def subset_forms(A: Array, sizes: Sequence[int]) -> tuple[Array, Array]:
    """log |A_QQ| and a − a_Q' A_QQ⁻¹ a_Q for every union Q of blocks of a bordered positive matrix.

    Parameters
    ----------
    A : (p + 1, p + 1) array
        Its last row and column are the border, a_Q and a.
    sizes : sequence of k ints
        Widths of the blocks, p in all.

    Returns
    -------
    log_det, corner : (2^k,) arrays
        Indexed by bitmasks, the first block the lowest bit.
    """
    rest, log_det = A[None], np.zeros(1)
    for size in sizes:
        pivot, cross, left = rest[:, :size, :size], rest[:, :size, size:], rest[:, size:, size:]
        if size == 1:
            swept = left - cross.transpose(0, 2, 1) * (cross / pivot)
            added = np.log(pivot[:, 0, 0])
        else:
            swept = left - cross.transpose(0, 2, 1) @ np.linalg.solve(pivot, cross)
            added = np.linalg.slogdet(pivot)[1]
        rest = np.concatenate([left, swept])
        log_det = np.concatenate([log_det, log_det + added])
    return log_det, rest[:, 0, 0]


def moments(z: Array, X: Array, precision: Array) -> Array:
    """The posterior parametric matrix of columns X (n, p) and, last, the task z (n,), (p + 1, p + 1)."""
    data = np.column_stack([X, z])
    mean = data.mean(axis=0)
    centred = data - mean
    shrunk = len(z) * MEAN_CELLS / (len(z) + MEAN_CELLS)
    return np.diag([*precision, PRECISION]) + centred.T @ centred + shrunk * np.outer(mean, mean)


def log_density(n: int, q: NDArray[np.int64], log_prior_det: Array, log_det: Array, corner: Array) -> Array:
    """Log evidence of n cells given q columns, from the forms of `moments` and log |T_QQ|."""
    table = np.arange(int(np.max(q)) + 1) + FREEDOM + 1
    constant = gammaln((table + n) / 2) - gammaln(table / 2) + table / 2 * np.log(PRECISION)
    constant += 0.5 * np.log(MEAN_CELLS / (n + MEAN_CELLS)) - n / 2 * np.log(np.pi)
    found: Array = constant[q] + 0.5 * (log_prior_det - log_det) - (table[q] + n) / 2 * np.log(corner)
    return found


def log_evidence(z: Array, X: Array, precision: Array) -> float:
    """Log evidence of one task z (n,) given all columns X (n, p) with their prior precisions."""
    return log_evidence_given(moments(z, X, precision), np.arange(X.shape[1]), precision, len(z))


def log_evidence_given(A: Array, kept: NDArray[np.int64], precision: Array, n: int) -> float:
    """Log evidence of n cells given some of the columns whose `moments` are A, with all columns' prior precisions."""
    at = np.append(kept, len(A) - 1)
    diagonal = np.diagonal(np.linalg.cholesky(A[np.ix_(at, at)]))
    log_det = np.array([2 * np.sum(np.log(diagonal[:-1]))])
    prior = np.array([np.sum(np.log(precision[kept]))])
    return float(log_density(n, np.array([len(kept)]), prior, log_det, diagonal[-1:] ** 2)[0])


@dataclass(frozen=True, eq=False)
class Closed:
    """The posterior of a task given k parents and any of some columns of inputs.

    Attributes
    ----------
    A : (p + 1, p + 1) array
        The `moments` of parents, all columns of inputs and, last, the task.
    mean : (p + 1,) array
        Their means over the n cells.
    n, k : int
    evidences : (2^g,) array
        Log evidence of every set of groups of inputs.
    """

    A: Array
    mean: Array
    n: int
    k: int
    evidences: Array

    def log_evidences(self) -> Array:
        """Log evidence of every set of groups of inputs, (2^g,)."""
        return self.evidences

    def draw(self, used: NDArray[np.int64], m: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Intercepts (m,), slopes (m, k + len(used)) of parents and of some columns of inputs, and noises (m,)."""
        kept = np.concatenate([np.arange(self.k), self.k + used, [len(self.A) - 1]])
        factor, mean, q = np.linalg.cholesky(self.A[np.ix_(kept, kept)]), self.mean[kept], len(kept) - 1
        noise = np.sqrt(0.5 * factor[q, q] ** 2 / rng.gamma(0.5 * (FREEDOM + 1 + q + self.n), size=m))
        # The factor's last row is L⁻¹ A_Qz with A_QQ = L L'.
        slopes = np.linalg.solve(factor[:q, :q].T, factor[q, :q, None] + noise * rng.normal(size=(q, m))).T
        centre = self.n / (self.n + MEAN_CELLS) * (mean[q] - slopes @ mean[:q])
        return centre + noise / np.sqrt(self.n + MEAN_CELLS) * rng.normal(size=m), slopes, noise
