"""Groups of columns of inputs: what one input can do to a task, a line and where that pays a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bmtl.advice.features import Dictionary
from bmtl.causal.normal import log_evidence, log_evidence_given, moments, precisions
from bmtl.causal.subsets import Array
from bmtl.tasks import Tasks

#: Fewer distinct values of an input than this have no curve to speak of.
FEWEST_VALUES = 5
N_CURVED = 3
CURVED_LEVEL = 2
#: Gain in log evidence of some task for which an input's curve is worth three more columns.
CURVE_PAYS = 5.0


@dataclass(frozen=True, eq=False)
class Curve:
    """The leading smooth functions of one input that are not linear in it, of unit variance over the rows.

    Attributes
    ----------
    dictionary : Dictionary
        Of all inputs on the rows.
    j : int
        The input.
    line : (2, k) array
        Intercept and slope of the features' lines.
    turn : (k, m) array
        From what is left of the features to m ≤ 3 functions.
    """

    dictionary: Dictionary
    j: int
    line: Array
    turn: Array

    @classmethod
    def of(cls, dictionary: Dictionary, j: int) -> Curve:
        phi, values = dictionary.factor(j, CURVED_LEVEL)
        x = np.column_stack([np.ones(len(phi)), dictionary.Z[:, j]])
        features = phi * np.sqrt(values)
        line = np.linalg.lstsq(x, features, rcond=None)[0]
        _, size, right = np.linalg.svd(features - x @ line, full_matrices=False)
        kept = int(np.sum(size[:N_CURVED] > 1e-6 * size[0]))
        return cls(dictionary, j, line, right[:kept].T / size[:kept] * np.sqrt(len(phi)))

    def at(self, z: Array) -> Array:
        """The functions at values z (n,) of the standardised input, (n, m)."""
        phi, values = self.dictionary.factor_at(self.j, CURVED_LEVEL, z)
        features = phi * np.sqrt(values)
        found: Array = (features - np.column_stack([np.ones(len(z)), z]) @ self.line) @ self.turn
        return found


@dataclass(frozen=True, eq=False)
class Group:
    """The columns of one input of the user's, of all its levels, or of its line and curve: they act on a task or not.

    Attributes
    ----------
    name : str
    inputs : tuple of int
        Positions of the encoded inputs.
    centre : (len(inputs),) array
        Their means over the rows, standardised as in `Tasks.Z`.
    curve : Curve, optional
    """

    name: str
    inputs: tuple[int, ...]
    centre: Array
    curve: Curve | None = None

    def at(self, Z: Array) -> Array:
        """Columns at standardised inputs Z (n, d), (n, q)."""
        lines = Z[:, list(self.inputs)] - self.centre
        return lines if self.curve is None else np.hstack([lines, self.curve.at(Z[:, self.inputs[0]])])

    @property
    def lines(self) -> list[int | None]:
        """For each column the encoded input of whose line it is the slope; None of a curve's."""
        return [*self.inputs, *([None] * (self.curve.turn.shape[1] if self.curve else 0))]


def grouped(
    tasks: Tasks, rows: NDArray[np.int64], z: Array, own: NDArray[np.bool_]
) -> tuple[tuple[Group, ...], tuple[Array, ...]]:
    """Groups of columns, one an input column of the user's, and their values on the rows.

    Parameters
    ----------
    rows : (n,) int array
    z, own : (n, T) arrays
        Standardised tasks, and the cells that are to be explained.
    """
    if not tasks.inputs:
        return (), ()
    dictionary = Dictionary(tasks.Z[rows])
    mean = dictionary.Z.mean(axis=0)
    groups = []
    for column in tasks.encoder.columns:
        kept = [j for j, name in enumerate(tasks.inputs) if name in column.encoded]
        if kept:
            groups.append(Group(column.name, tuple(kept), mean[kept]))
    blocks = [group.at(dictionary.Z) for group in groups]

    def gain(block: Array) -> float:
        """The most that a block adds to the log evidence of a task beside all straight lines."""
        return max(_gain(z[cells, t], [x[cells] for x in blocks], block[cells]) for t, cells in enumerate(own.T))

    for i, group in enumerate(groups):
        if len(group.inputs) == 1 and len(np.unique(blocks[i])) >= FEWEST_VALUES:
            curve = Curve.of(dictionary, group.inputs[0])
            if gain(curve.at(dictionary.Z[:, curve.j])) > CURVE_PAYS:
                groups[i] = replace(group, curve=curve)
    return tuple(groups), tuple(group.at(dictionary.Z) for group in groups)


def together(
    blocks: Sequence[Array], z: Array, own: NDArray[np.bool_], most: int
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For each task which groups of columns act on it together or not at all: each alone, of up to ``most`` groups.

    Of more, those of no use to the task are taken as one, the first, and those of least use beyond ``most``. Of use is
    what adds to its evidence as if Gaussian, alone, beside all other groups, or beside them and all other tasks: an
    input of its effect's is of use beside the effect.

    Parameters
    ----------
    blocks : sequence of (n, q) arrays
    z, own : (n, T) arrays
        Standardised tasks, and the cells that are to be explained.
    most : int
    """
    K, T = len(blocks), z.shape[1]
    if most >= K:
        return (tuple((g,) for g in range(K)),) * T
    group = np.repeat(np.arange(K), [block.shape[1] for block in blocks])
    # Other tasks come after the columns of inputs.
    group = np.concatenate([group, np.full(T - 1, K)])
    precision = precisions([*(block.shape[1] for block in blocks), *[1] * (T - 1)])
    found = []
    for t, cells in enumerate(own.T):
        A = moments(z[cells, t], np.hstack([*blocks, np.delete(z, t, axis=1)])[cells], precision)

        def evidence(kept: NDArray[np.bool_], A: Array = A, n: int = int(cells.sum())) -> float:
            return log_evidence_given(A, np.flatnonzero(kept), precision, n)

        alone, beside, everything = evidence(group < 0), evidence(group < K), evidence(group <= K)
        use = [
            max(
                evidence(group == g) - alone, beside - evidence((group < K) & (group != g)),
                everything - evidence(group != g),
            )
            for g in range(K)
        ]
        first = sorted((g for g in range(K) if use[g] > 0), key=lambda g: -use[g])[: most - 1]
        last = tuple(g for g in range(K) if g not in first)
        found.append((last, *((g,) for g in sorted(first))))
    return tuple(found)


def _gain(z: Array, given: list[Array], block: Array) -> float:
    """Gain in the log evidence of one task from a block of columns beside others that are given."""

    def evidence(blocks: list[Array]) -> float:
        X = np.hstack([np.empty((len(z), 0)), *blocks])
        return log_evidence(z, X, precisions([x.shape[1] for x in blocks]))

    return evidence([*given, block]) - evidence(given)
