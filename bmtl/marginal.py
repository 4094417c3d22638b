"""Gaussian heads integrated out: the same posterior over everything else, in fewer dimensions.

Given trunk, noise and scales, the outcomes of Gaussian tasks are jointly Gaussian: ``y = A β + ε``, ``β = m + F z``,
``z ~ Normal(0, I)`` and ``ε ~ Normal(0, diag σ²)``. With ``K = I + Fᵀ G F``, ``G = Aᵀ diag(σ⁻²) A`` and ẑ the mode of z
(Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 2.1 and appendix A):

    log p(y) = −½ (log det K + Σ log 2πσ² + Σ (y − Aβ̂)²/σ² + ẑᵀẑ),    z | y ~ Normal(ẑ, K⁻¹)

The residual form of the quadratic keeps its precision in single precision, where yᵀy − … would cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bmtl.arrangement import Arrangement
from bmtl.data import Data, Design
from bmtl.engine.replay import Replay
from bmtl.errors import TaskError
from bmtl.model import noise_site


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


@dataclass(frozen=True)
class Marginal:
    """A model with its heads and intercepts integrated out, on NumPyro.

    Parameters
    ----------
    model : Model
        With ``trunk``, ``relation``, ``amplitude`` and ``noise``; the relation Gaussian given its other sites.
    """

    model: Any

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return self.model.arranged(names)

    def check(self, design: Design) -> None:
        """Raise unless the heads can be integrated out.

        Raises
        ------
        TaskError
            If a task is not Gaussian.
        ValueError
            If the heads are not Gaussian given the rest, or tasks share a head.
        """
        other = [name for name, own in zip(design.names, design.families, strict=True) if own.name != "gaussian"]
        if other:
            raise TaskError(f"marginal=True integrates Gaussian heads out, but these tasks are not gaussian: {other}")
        relation = getattr(self.model, "relation", None)
        if not hasattr(relation, "gaussian"):
            what = type(self.model).__name__ if relation is None else f"the relation {type(relation).__name__}"
            raise ValueError(f"marginal=True needs heads that are Gaussian given the rest; those of {what} are not")
        plan = design.plan(self.arranged(design.names))
        if len(set(plan.head_of)) < len(plan.head_of):
            raise ValueError("marginal=True needs a head of its own for every task, but the arrangement merges some")

    def program(self, e: Any, data: Data) -> None:
        e.factor("evidence", self.evidence(e, data).log)

    def evidence(self, e: Any, data: Data) -> Evidence:
        """Draw everything but heads and intercepts; then in closed form.

        The noise of a task divides its rows of A and y.
        """
        model, design = self.model, data.design
        plan = design.plan(self.arranged(design.names))
        phi = model.trunk.sample(e, data.x, plan.n_trunks)
        k = phi.shape[-1]
        prior = model.relation.gaussian(e, plan, design, k, model.amplitude)
        A = jnp.concatenate([jnp.ones((*phi.shape[:-1], 1)), phi * k**-0.5], axis=-1)
        trunk_of = plan.trunk_of_head[plan.head_of] if len(phi) > 1 else np.zeros(design.n_tasks, dtype=int)
        y, mask, sigma = self._cells(e, data)

        # Sums over each task's rows, trunk by trunk: features are not repeated for tasks of one trunk.
        order = np.argsort(np.argsort(trunk_of, kind="stable"))

        def by_trunk(one: Any, *values: Any) -> Any:
            return jnp.concatenate([one(A[i], *(v[trunk_of == i] for v in values)) for i in range(len(A))])[order]

        gram = by_trunk(lambda A, m: jnp.einsum("tr,rp,rq->tpq", m, A, A), mask / sigma[:, None] ** 2)
        fitted = by_trunk(lambda A, beta: beta @ A.T, prior.loc)
        h = by_trunk(lambda A, left: left @ A, mask * (y - fitted) / sigma[:, None] ** 2)
        own = jnp.einsum("tqm,tq->tm", prior.factor, h)
        K = jnp.einsum("tqm,tqr,trn->tmn", prior.factor, gram, prior.factor)
        if prior.coupled:
            own, K = own.sum(axis=0, keepdims=True), K.sum(axis=0, keepdims=True)
        tril = jnp.linalg.cholesky(K + jnp.eye(K.shape[-1]))
        half = solve_triangular(tril, own[..., None], lower=True)
        mode = solve_triangular(tril, half, lower=True, trans=1)[..., 0]
        every = jnp.broadcast_to(mode, (design.n_tasks, mode.shape[-1]))
        fitted = by_trunk(lambda A, beta: beta @ A.T, prior.loc + jnp.einsum("tqm,tm->tq", prior.factor, every))
        residual = jnp.sum(mask * ((y - fitted) / sigma[:, None]) ** 2)
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)))
        log_noise = jnp.sum(mask.sum(axis=-1) * jnp.log(2 * jnp.pi * sigma**2))
        return Evidence(-0.5 * (log_det + log_noise + residual + jnp.sum(mode**2)), mode, tril)

    def _cells(self, e: Any, data: Data) -> tuple[Any, Any, Any]:
        """Outcomes and their mask, ``tasks × rows``, and the noise of each task."""
        design = data.design
        (block,) = data.blocks()
        reference = np.stack(design.reference)
        sigma = block.family.sample_noise(e, noise_site(block.name), self.model.noise, design.unit, reference)
        if data.task is None:
            return block.y, jnp.asarray(block.mask, dtype=jnp.float32), sigma
        of_row = data.task == jnp.arange(design.n_tasks)[:, None]
        return block.y[None, :], jnp.asarray(of_row & block.mask, dtype=jnp.float32), sigma

    def complete(
        self, design: Design, values: Mapping[str, Any], sites: Mapping[str, np.ndarray], seed: int
    ) -> dict[str, np.ndarray]:
        """All sites of the model, from draws of those that were not integrated out.

        Parameters
        ----------
        sites : mapping
            Site to array, ``chains × draws × event shape``.
        """
        plan = design.plan(self.arranged(design.names))

        def one(draw: Any) -> Any:
            own, key = draw
            found = self.evidence(Replay(own), Data(design, values))
            noise = jax.random.normal(key, found.mode.shape)
            return found.mode + solve_triangular(found.tril, noise[..., None], lower=True, trans=1)[..., 0]

        shape = next(iter(sites.values())).shape[:2]
        flat = {name: jnp.asarray(value).reshape(-1, *value.shape[2:]) for name, value in sites.items()}
        keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(seed), 1), shape[0] * shape[1])
        z = np.asarray(jax.jit(lambda *draws: jax.lax.map(one, draws))(flat, keys))
        z = z.reshape(*shape, design.n_tasks, -1)
        found = self.model.relation.sites(plan, design, z)
        return {**sites, **{name: np.asarray(value, dtype=np.float32) for name, value in found.items()}}
