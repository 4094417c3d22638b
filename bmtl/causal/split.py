"""The correlation of two tasks, split into what goes where.

With z = B'z + A'x + e for standardised outcomes z, centred columns of inputs x and what is left e, and M = (I − B)⁻¹,
z = M'(A'x + e), so that the sample covariance of z is exactly
    M'A' S_x A M  +  M' D M  +  rest,    D = diag(S_e):
what inputs explain, what the graph's edges make of independent noises, and what correlations of e with each other and
with inputs add, which no edge explains. Of K = M' D M the entry of an edge a → b is b_ab K_aa, passed on by the edge
itself, and Σ_u b_ub K_au over b's other parents, which comes through other tasks: pipes, and forks or common causes.
(Duncan, American Journal of Sociology, 1966, splits correlations so.)
"""

from __future__ import annotations

import numpy as np

from bmtl.causal.columns import Columns
from bmtl.causal.subsets import Array
from bmtl.errors import TaskError

PARTS = ("inputs", "edge", "other tasks", "unexplained")
FEWEST = 3


def split(columns: Columns, slopes: Array, inputs: Array, a: int, b: int) -> tuple[Array, float]:
    """Parts of the correlation of two tasks, (S, 4) in the order of `PARTS`, and the correlation they sum to.

    Parameters
    ----------
    slopes : (S, T, T) array
        B, on standardised outcomes.
    inputs : (S, P, T) array
        A.

    Raises
    ------
    TaskError
        If there are next to no rows on which no task was set from outside: these are the ones that are split.
    """
    rows = columns.own.all(axis=1)
    if rows.sum() < FEWEST:
        raise TaskError(f"a task was set from outside on all but {int(rows.sum())} rows: no correlation to split")
    T = columns.n_tasks
    both = np.hstack([columns.z, columns.design])[rows]
    S = np.atleast_2d(np.cov(both, rowvar=False, ddof=0))
    unit = float(np.sqrt(S[a, a] * S[b, b]))
    # e = z − B'z − A'x.
    left = np.concatenate([np.eye(T) - slopes.transpose(0, 2, 1), -inputs.transpose(0, 2, 1)], axis=2)
    noise = np.einsum("stp,pq,stq->st", left, S, left, optimize=True)
    M = np.linalg.inv(np.eye(T) - slopes)
    by_inputs = inputs @ M[:, :, [a, b]]
    explained = np.einsum("sp,pq,sq->s", by_inputs[:, :, 0], S[T:, T:], by_inputs[:, :, 1], optimize=True)
    K = np.einsum("sua,su,sub->sab", M, noise, M, optimize=True)
    edge = slopes[:, a, b] * K[:, a, a] + slopes[:, b, a] * K[:, b, b]
    parts = np.stack([explained, edge, K[:, a, b] - edge, S[a, b] - explained - K[:, a, b]], axis=1)
    return parts / unit, float(S[a, b]) / unit
