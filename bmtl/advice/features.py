"""A finite dictionary of kernels over subsets of the inputs, each reduced to a few eigen-features.

A member of the dictionary is a tuple of d levels, one per input: 0 leaves the input out, ``k`` > 0 gives it the
lengthscale ``LENGTHSCALES[k - 1]``; or of 2 d levels, which is the sum of two such kernels in equal parts. A kernel is
the product over the inputs in use of one-dimensional squared exponentials. Each factor has its Mercer expansion under
the input's own marginal distribution (found by Nyström on quantiles, so that skewed, discrete and binary inputs need no
special case), and the features are the products of factors with the largest eigenvalues (Rasmussen & Williams, Gaussian
Processes for Machine Learning, 2006, sections 4.3 and 8.1); sums are those of Duvenaud, Nickisch & Rasmussen (2011),
Additive Gaussian Processes. The linear members use the standardised inputs themselves.

Features are centred over the rows and scaled to total variance one, so that the amplitude of a function is its
standard deviation over the inputs and the intercept is nobody else's.
"""

from __future__ import annotations

from itertools import combinations
from math import lgamma, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Theta = tuple[int, ...]

#: In standard deviations of an input: from wiggly to all but linear.
LENGTHSCALES = (0.8, 1.6, 3.2, 8.0)
#: Level of an input in the linear members of the dictionary.
LINEAR = len(LENGTHSCALES) + 1
#: Levels at which a search first takes an input in.
ENTRY = (2, 3)
#: Prior probability that a function is a sum of two.
P_SUM = 0.2
#: Share of its variance that each part of a sum has.
SHARE = 0.5

N_QUANTILES = 33
N_FACTORS = 8
N_FEATURES = 48
#: Of each part of a sum.
N_PART = 32
#: Inputs up to which a search splits a kernel in every way, and not only one input from the others.
N_SPLIT = 5
N_REFERENCE = 1000


def spread_rows(keys: Array, size: int) -> NDArray[np.intp]:
    """At most ``size`` rows, evenly spaced in the lexicographic order of ``keys`` (n, k).

    The set of rows chosen does not depend on the order they stand in.
    """
    n = len(keys)
    if n <= size:
        return np.arange(n)
    order = np.lexsort(keys.T[::-1])
    return np.sort(order[np.linspace(0, n - 1, size).round().astype(int)])


def sum_of(first: Theta, second: Theta) -> Theta:
    """The sum of two parts, whichever comes first."""
    return min(first, second) + max(first, second)


def mixed(first: Array, second: Array, share: float = SHARE) -> Array:
    """Features (n, q) and (n, q') of two parts side by side, of which the first has this share of the variance."""
    return np.hstack([sqrt(share) * first, sqrt(1.0 - share) * second])


class Dictionary:
    """Kernels on the rows of one table of inputs.

    Parameters
    ----------
    Z : (n_rows, d) array
        Standardised inputs.
    linear : bool
        Keep the linear kernels only.
    """

    def __init__(self, Z: Array, *, linear: bool = False) -> None:
        self.Z = np.asarray(Z, dtype=float)
        self.d = self.Z.shape[1]
        self.linear = linear
        self._reference = spread_rows(self.Z, N_REFERENCE)
        self._factors: dict[tuple[int, int], tuple[Array, Array]] = {}
        self._centre_scale: dict[Theta, tuple[Array, float]] = {}
        self._small: dict[Theta, Array] = {}
        self._level_prior = self._level_priors()

    def _level_priors(self) -> Array:
        """Log prior of a level given the number of inputs in use, (d + 1, levels + 1).

        A sum over many inputs of equally wiggly functions would be noise to any sample, so lengthscales are
        expected to grow with √|S|.
        """
        size = np.arange(self.d + 1)[:, None].clip(1)
        distance = np.log(np.asarray(LENGTHSCALES)) - np.log(1.3 * np.sqrt(size))
        log_p = -0.5 * (distance / 0.8) ** 2
        log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
        zero = np.zeros((self.d + 1, 1))
        return np.hstack([zero, log_p, zero])

    def size_prior(self, size: int) -> float:
        """Log prior of one subset of that size: uniform over sizes, then over the subsets of a size."""
        log_subsets = lgamma(self.d + 1) - lgamma(size + 1) - lgamma(self.d - size + 1)
        return -float(np.log(self.d)) - log_subsets

    def log_prior(self, theta: Theta) -> float:
        """Log prior probability of a member."""
        parts = self.parts(theta)
        if len(parts) == 2:
            return float(np.log(2.0 * P_SUM)) + sum(self.log_part(part) for part in parts)
        return self.log_part(theta) + (0.0 if self.linear else float(np.log1p(-P_SUM)))

    def log_part(self, theta: Theta) -> float:
        """Log prior probability of one product of factors."""
        used = [level for level in theta if level]
        return self.size_prior(len(used)) + float(sum(self._level_prior[len(used), level] for level in used))

    def parts(self, theta: Theta) -> tuple[Theta, ...]:
        """The two parts of a sum, or the member itself."""
        return (theta,) if len(theta) == self.d else (theta[: self.d], theta[self.d :])

    def inputs(self, theta: Theta) -> tuple[int, ...]:
        """The inputs in use."""
        return tuple(j for j in range(self.d) if any(part[j] for part in self.parts(theta)))

    def splits(self, theta: Theta) -> list[Theta]:
        """Sums whose parts have the inputs of one member between them; none of a sum, or of linear members."""
        used = self.inputs(theta)
        if len(theta) > self.d or self.linear or len(used) < 2:
            return []
        sizes = range(1, len(used) // 2 + 1) if len(used) <= N_SPLIT else (1,)
        chosen = [set(own) for size in sizes for own in combinations(used, size)]
        return [
            sum_of(
                tuple(level * (j in own) for j, level in enumerate(theta)),
                tuple(level * (j not in own) for j, level in enumerate(theta)),
            )
            for own in chosen
        ]

    def starts(self) -> list[Theta]:
        """Where searches start: every input alone, and all of them together."""
        if self.linear:
            alone = [tuple(LINEAR * (j == i) for j in range(self.d)) for i in range(self.d)]
            return [*alone, (LINEAR,) * self.d]
        alone = [tuple(level * (j == i) for j in range(self.d)) for i in range(self.d) for level in ENTRY]
        return [*alone, (len(LENGTHSCALES),) * self.d]

    def neighbours(self, theta: Theta) -> list[Theta]:
        """Members one step away: an input in or out, or its lengthscale up or down a level."""
        parts = self.parts(theta)
        if len(parts) == 2:
            return [
                sum_of(step, other) for own, other in (parts, parts[::-1]) for step in self.neighbours(own)
                if step != other
            ]
        found = []
        for j, level in enumerate(theta):
            if self.linear:
                levels: tuple[int, ...] = (0,) if level else (LINEAR,)
            elif level:
                levels = tuple(k for k in (0, level - 1, level + 1) if k == 0 or 1 <= k <= len(LENGTHSCALES))
            else:
                levels = ENTRY
            found += [(*theta[:j], k, *theta[j + 1 :]) for k in dict.fromkeys(levels)]
        return [t for t in found if any(t)]

    def factor(self, j: int, level: int) -> tuple[Array, Array]:
        """Eigen-features of input j's kernel at that level on all rows, (n_rows, k), and eigenvalues (k,)."""
        key = (j, level)
        if key not in self._factors:
            self._factors[key] = self.factor_at(j, level, self.Z[:, j])
        return self._factors[key]

    def factor_at(self, j: int, level: int, x: Array) -> tuple[Array, Array]:
        """As `factor`, at other values x (n,) of the standardised input."""
        u = np.quantile(self.Z[:, j], (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES)
        ell = LENGTHSCALES[level - 1]
        values, vectors = np.linalg.eigh(np.exp(-0.5 * ((u[:, None] - u) / ell) ** 2))
        keep = np.flatnonzero(values > 1e-4 * N_QUANTILES)[::-1][:N_FACTORS]
        phi = np.exp(-0.5 * ((x[:, None] - u) / ell) ** 2) @ (vectors[:, keep] / np.sqrt(values[keep]))
        return phi, values[keep] / N_QUANTILES

    def _raw(self, theta: Theta, rows: NDArray[np.intp]) -> Array:
        """Features before centring and scaling, on some rows."""
        used = [j for j, level in enumerate(theta) if level]
        if theta[used[0]] == LINEAR:
            return self.Z[rows][:, used]
        phi, weight = np.ones((len(rows), 1)), np.ones(1)
        for j in used:
            factor, values = self.factor(j, theta[j])
            # The leading products of a longer list are products of its leading parts, so truncating here is exact.
            product = np.outer(weight, values).ravel()
            top = np.argsort(-product, kind="stable")[: N_FEATURES + 1]
            old, new = np.divmod(top, len(values))
            phi = phi[:, old] * factor[rows][:, new]
            weight = product[top]
        return phi

    def part(self, theta: Theta, rows: NDArray[np.intp]) -> Array:
        """Features of one part of a sum."""
        return self.features(theta, rows)[:, :N_PART]

    def features(self, theta: Theta, rows: NDArray[np.intp]) -> Array:
        """Features of a member on some rows, (len(rows), q), scaled so that their prior variances are one."""
        parts = self.parts(theta)
        if len(parts) == 2:
            first, second = (self.part(part, rows) for part in parts)
            return mixed(first, second)
        small = len(self.Z) <= N_REFERENCE
        if small and theta in self._small:
            return self._small[theta][rows]
        if theta not in self._centre_scale:
            reference = self._raw(theta, self._reference)
            centre = reference.mean(axis=0)
            scale = sqrt(max(float(np.sum((reference - centre) ** 2)) / len(reference), 1e-12))
            self._centre_scale[theta] = centre, scale
            if small:
                self._small[theta] = (reference - centre) / scale
                return self._small[theta][rows]
        centre, scale = self._centre_scale[theta]
        return (self._raw(theta, rows) - centre) / scale
