"""Gaussian heads integrated out: the same posterior over everything else, in fewer dimensions.

Given trunk, noise and scales, the outcomes of Gaussian tasks are jointly Gaussian: ``y = A β + ε``, ``β = m + F z``,
``z ~ Normal(0, I)`` and ``ε ~ Normal(0, diag σ²)``. With ``K = I + Fᵀ G F``, ``G = Aᵀ diag(σ⁻²) A`` and ẑ the mode of z
(Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 2.1 and appendix A):

    log p(y) = −½ (log det K + Σ log 2πσ² + Σ (y − Aβ̂)²/σ² + ẑᵀẑ),    z | y ~ Normal(ẑ, K⁻¹)

The residual form of the quadratic keeps its precision in single precision, where yᵀy − … would cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bmtl.data import Data, Design
from bmtl.engine.replay import Replay
from bmtl.errors import TaskError
from bmtl.model import noises
from bmtl.noise import ByGroup


class Evidence(NamedTuple):
    """Log evidence of the outcomes, and the Gaussian of z given them.

    Attributes
    ----------
    log : array, shape ()
    mode : array, shape (B, m)
        One row a block of coupled tasks.
    tril : array, shape (B, m, m)
        Cholesky factor of the precision K.
    """

    log: Any
    mode: Any
    tril: Any


class Rows(NamedTuple):
    """Features and outcomes of tasks that share rows, for trunks that change from draw to draw.

    Attributes
    ----------
    A : array, shape (trunks, rows, q)
        Features of each trunk, a one in front.
    y, mask : array, shape (T, rows)
    trunk_of : ndarray of int, shape (T,)
    """

    A: Any
    y: Any
    mask: Any
    trunk_of: np.ndarray

    def cells(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features and outcomes of each task's cells."""
        for t, i in enumerate(self.trunk_of):
            on = np.asarray(self.mask[t]) > 0
            yield np.asarray(self.A[i])[on], np.asarray(self.y[t])[on]

    def each(self, one: Any, *values: Any) -> Any:
        """``one(A of the trunk, values of its tasks)`` for all tasks; features are not repeated for each task."""
        parts = [one(self.A[i], *(v[self.trunk_of == i] for v in values)) for i in range(len(self.A))]
        return jnp.concatenate(parts)[np.argsort(np.argsort(self.trunk_of, kind="stable"))]

    def counts(self) -> Any:
        """Cells of each task."""
        return self.mask.sum(axis=-1)

    def gram(self) -> Any:
        """``AᵀA`` over each task's rows, ``T × q × q``."""
        return self.each(lambda A, m: jnp.einsum("tr,rp,rq->tpq", m, A, A), self.mask)

    def left(self, beta: Any) -> Any:
        """``Aᵀ(y − Aβ)``, ``T × q``."""
        return self.each(lambda A, r: r @ A, self._residual(beta))

    def squares(self, beta: Any) -> Any:
        """``|y − Aβ|²``, ``(T,)``."""
        return jnp.sum(self._residual(beta) ** 2, axis=-1)

    def _residual(self, beta: Any) -> Any:
        return self.mask * (self.y - self.each(lambda A, b: b @ A.T, beta))


class Segments(NamedTuple):
    """The same where each row belongs to one task: sums over segments of rows of one task, then over its segments.

    Attributes
    ----------
    A : array, shape (segments, size, q)
        Features of each row, on the trunk of its task.
    y, mask : array, shape (segments, size)
    task : array of int, shape (segments,)
    n_tasks : int
    """

    A: Any
    y: Any
    mask: Any
    task: Any
    n_tasks: int

    def cells(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features and outcomes of each task's cells."""
        on = np.asarray(self.mask) > 0
        task = np.broadcast_to(np.asarray(self.task)[:, None], on.shape)[on]
        order = np.argsort(task, kind="stable")
        ends = np.searchsorted(task[order], np.arange(1, self.n_tasks))
        A, y = (np.split(np.asarray(own)[on][order], ends) for own in (self.A, self.y))
        return zip(A, y, strict=True)

    def counts(self) -> Any:
        return self._sum(self.mask.sum(axis=-1))

    def gram(self) -> Any:
        return self._sum(jnp.matmul(self.A.mT, self.mask[..., None] * self.A))

    def left(self, beta: Any) -> Any:
        return self._sum(jnp.einsum("sr,srp->sp", self._residual(beta), self.A))

    def squares(self, beta: Any) -> Any:
        return self._sum(jnp.sum(self._residual(beta) ** 2, axis=-1))

    def _residual(self, beta: Any) -> Any:
        return self.mask * (self.y - jnp.einsum("srp,sp->sr", self.A, beta[self.task]))

    def _sum(self, own: Any) -> Any:
        return jax.ops.segment_sum(own, self.task, self.n_tasks)


class Moments(NamedTuple):
    """The same through each task's least squares, for features that are the same at every draw: rows cost nothing.

    Attributes
    ----------
    n, rss : array, shape (T,)
        Cells, and their sum of squares around least squares.
    ols : array, shape (T, q)
        Coefficients of least squares.
    AA : array, shape (T, q, q)
    """

    n: Any
    rss: Any
    ols: Any
    AA: Any

    @classmethod
    def of(cls, rows: Rows | Segments) -> Moments:
        """Computed in double precision."""
        found = []
        for own in rows.cells():
            A, y = (value.astype(float) for value in own)
            ols = np.linalg.lstsq(A, y)[0]
            found.append((len(y), np.sum((y - A @ ols) ** 2), ols, A.T @ A))
        return cls(*(jnp.asarray(np.stack(own), dtype=jnp.float32) for own in zip(*found, strict=True)))

    def counts(self) -> Any:
        return self.n

    def gram(self) -> Any:
        return self.AA

    def left(self, beta: Any) -> Any:
        return jnp.einsum("tpq,tq->tp", self.AA, self.ols - beta)

    def squares(self, beta: Any) -> Any:
        off = self.ols - beta
        return self.rss + jnp.einsum("tp,tpq,tq->t", off, self.AA, off)


class Marginal:
    """A model with its heads and intercepts integrated out, on NumPyro.

    Parameters
    ----------
    model : Model
        With ``trunk``, ``relation``, ``amplitude`` and ``noise``; the relation Gaussian given its other sites.
    design : Design
    values : mapping
        Arrays of `bmtl.data.arrays`.
    moments : Moments, optional
        Of the same data, where they are known; then the arrays may be traced.

    Attributes
    ----------
    fixed : Moments or None
        Where features are the same at every draw.

    Raises
    ------
    TaskError
        If a task is not Gaussian.
    ValueError
        If the heads are not Gaussian given the rest, or tasks share a head.
    """

    def __init__(
        self, model: Any, design: Design, values: Mapping[str, Any], moments: Moments | None = None
    ) -> None:
        _check(model, design)
        self.model, self.design = model, design
        self.data = Data(design, values)
        self.plan = design.plan(model.arranged(design.names))
        self.fixed = moments
        if moments is None and not model.trunk.learned:
            self.fixed = Moments.of(self._rows(Replay({})))

    def program(self, e: Any) -> None:
        e.factor("evidence", self.evidence(e).log)

    def _rows(self, e: Any) -> Rows | Segments:
        """Draw the trunk."""
        data, plan = self.data, self.plan
        phi = self.model.trunk.sample(e, data.x, plan.n_trunks)
        A = jnp.concatenate([jnp.ones((*phi.shape[:-1], 1)), phi * phi.shape[-1] ** -0.5], axis=-1)
        n_tasks = self.design.n_tasks
        trunk_of = plan.trunk_of_head[plan.head_of] if len(A) > 1 else np.zeros(n_tasks, dtype=int)
        (block,) = data.blocks()
        mask = jnp.asarray(block.mask, dtype=jnp.float32)
        if data.task is None:
            return Rows(A, block.y, mask, trunk_of)
        own = A[0] if len(A) == 1 else A[jnp.asarray(trunk_of)[data.task], np.arange(len(data.task))]
        task = data.task if data.segment is None else data.segment
        shape = len(task), -1
        return Segments(own.reshape(*shape, own.shape[-1]), block.y.reshape(shape), mask.reshape(shape), task, n_tasks)

    def evidence(self, e: Any) -> Evidence:
        """Draw everything but heads and intercepts; then in closed form."""
        model, design = self.model, self.design
        found = self.fixed or self._rows(e)
        AA = found.gram()
        prior = model.relation.gaussian(e, self.plan, design, AA.shape[-1] - 1, model.amplitude)
        (block,) = self.data.blocks()
        sigma = noises(e, block.name, block.tasks, design, model.noise)

        precision = sigma**-2
        h = jnp.einsum("tqm,tq->tm", prior.factor, precision[:, None] * found.left(prior.loc))
        K = jnp.einsum("t,tqm,tqr,trn->tmn", precision, prior.factor, AA, prior.factor)
        if prior.coupled:
            h, K = h.sum(axis=0, keepdims=True), K.sum(axis=0, keepdims=True)
        tril = cholesky(K + jnp.eye(K.shape[-1]))
        mode = solve(tril, solve(tril, h), transposed=True)
        every = jnp.broadcast_to(mode, (design.n_tasks, mode.shape[-1]))
        squares = found.squares(prior.loc + jnp.einsum("tqm,tm->tq", prior.factor, every))
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)))
        log_noise = jnp.sum(found.counts() * jnp.log(2 * jnp.pi / precision))
        return Evidence(-0.5 * (log_det + log_noise + precision @ squares + jnp.sum(mode**2)), mode, tril)

    def coefficients(self, sites: Mapping[str, Any], keys: Any) -> Any:
        """A draw of z, ``draws × T × m``, for each of the others (``draws × event shape``) and its key."""

        def one(draw: Any) -> Any:
            own, key = draw
            found = self.evidence(Replay(own))
            noise = jax.random.normal(key, found.mode.shape)
            return found.mode + solve(found.tril, noise, transposed=True)

        return jax.lax.map(one, (sites, keys))

    def complete(
        self, sites: Mapping[str, np.ndarray], seed: int, coefficients: Callable[[Any, Any], Any] | None = None
    ) -> dict[str, np.ndarray]:
        """All sites of the model, from draws of those that were not integrated out.

        Parameters
        ----------
        sites : mapping
            Site to array, ``chains × draws × event shape``.
        coefficients : callable, optional
            The method of this name, compiled.
        """
        shape = next(iter(sites.values())).shape[:2]
        flat = {name: jnp.asarray(value).reshape(-1, *value.shape[2:]) for name, value in sites.items()}
        keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(seed), 1), shape[0] * shape[1])
        z = np.asarray((coefficients or jax.jit(self.coefficients))(flat, keys))
        found = self.model.relation.sites(self.plan, self.design, z.reshape(*shape, self.design.n_tasks, -1))
        return {**sites, **{name: np.asarray(value, dtype=np.float32) for name, value in found.items()}}


UNROLLED = 6
"""Matrices up to this size are factored entry by entry: XLA makes one loop over all of them of that, but calls LAPACK
for every single one otherwise, and again for the gradient."""


def cholesky(K: Any) -> Any:
    """Lower Cholesky factors of ``… × m × m``."""
    m = K.shape[-1]
    if m > UNROLLED:
        return jnp.linalg.cholesky(K)
    tril = [[jnp.zeros_like(K[..., 0, 0])] * m for _ in range(m)]
    for j in range(m):
        tril[j][j] = jnp.sqrt(K[..., j, j] - sum(tril[j][k] ** 2 for k in range(j)))
        for i in range(j + 1, m):
            tril[i][j] = (K[..., i, j] - sum(tril[i][k] * tril[j][k] for k in range(j))) / tril[j][j]
    return jnp.stack([jnp.stack(row, axis=-1) for row in tril], axis=-2)


def solve(tril: Any, b: Any, transposed: bool = False) -> Any:
    """Solutions of ``L x = b``, or of ``Lᵀ x = b``, ``… × m``."""
    m = tril.shape[-1]
    if m > UNROLLED:
        return solve_triangular(tril, b[..., None], lower=True, trans=int(transposed))[..., 0]
    entry = tril.mT if transposed else tril
    x: list[Any] = [None] * m
    done: list[int] = []
    for i in reversed(range(m)) if transposed else range(m):
        x[i] = (b[..., i] - sum(entry[..., i, k] * x[k] for k in done)) / entry[..., i, i]
        done.append(i)
    return jnp.stack(x, axis=-1)


def _check(model: Any, design: Design) -> None:
    other = [name for name, own in zip(design.names, design.families, strict=True) if own.name != "gaussian"]
    if other:
        raise TaskError(f"marginal=True integrates Gaussian heads out, but these tasks are not gaussian: {other}")
    for name in ("head_widths", "inputs"):
        if getattr(model, name, ()):
            raise ValueError(f"marginal=True needs heads on the trunk's features as they are, without {name}")
    if hasattr(model, "runs"):
        raise ValueError(f"marginal=True needs outcomes that do not act on each other, unlike {type(model).__name__}")
    relation = getattr(model, "relation", None)
    if not hasattr(relation, "gaussian"):
        what = type(model).__name__ if relation is None else f"the relation {type(relation).__name__}"
        raise ValueError(f"marginal=True needs heads that are Gaussian given the rest; those of {what} are not")
    if isinstance(model.noise, ByGroup):
        raise ValueError("marginal=True needs one noise a task, not noises by group")
    head_of = design.plan(model.arranged(design.names)).head_of
    if len(set(head_of)) < len(head_of):
        raise ValueError("marginal=True needs a head of its own for every task, but the arrangement merges some")
