"""NUTS on NumPyro for many data sets of one shape at once, for simulation studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from bmtl.errors import FitError
from bmtl.fitting.numpyro_latent import Latent
from bmtl.fitting.numpyro_nuts import STARTING_DRAWS
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import NUTS

STEPS = 20
"""Iterations of a compiled call: between two of them the sampler can be interrupted."""


class Chains(NamedTuple):
    """A chain from the median of the prior, as in a fit, and one from the true values, for every data set.

    Attributes
    ----------
    fitted, true : ndarray, shape (data sets, draws, size)
        Unconstrained draws. Those from the true values, which are a draw from the posterior, are two chains one after
        another, which part the draws at random: the true values then have a uniform rank among them even if the
        sampler mixes badly between modes (Gandy & Scott, "Unit testing for MCMC and other Monte Carlo methods",
        2020; exact for a reversible sampler).
    diverging : ndarray of int, shape (data sets,)
        Divergent iterations of the first chain.
    """

    fitted: np.ndarray
    true: np.ndarray
    diverging: np.ndarray


def run(
    latent: Latent,
    fixed: Mapping[str, Any],
    own: Mapping[str, np.ndarray],
    truth: np.ndarray,
    settings: NUTS,
    seed: int,
    progress: Progress | None = None,
) -> Chains:
    """Two chains for every data set, all of them as one vectorised program.

    Parameters
    ----------
    fixed, own : mapping
        Arrays that all data sets have in common, and those of each in the leading dimension.
    truth : ndarray, shape (data sets, size)
        Where the second chains start, unconstrained.

    Raises
    ------
    FitError
        If the log-density is not finite where a chain starts.
    """
    progress = progress or Progress(False)
    count = len(truth)
    arrays = {name: jnp.concatenate([value, value]) for name, value in own.items()}
    initial, sample = hmc(potential_fn_gen=lambda arrays: lambda z: -latent.log_density(z, {**fixed, **arrays}))

    def begin(z: Any, arrays: Any, key: Any) -> Any:
        return initial(
            z, settings.warmup, target_accept_prob=settings.target_accept, max_tree_depth=settings.max_tree_depth,
            model_args=(arrays,), rng_key=key,
        )

    example = {**fixed, **{name: value[0] for name, value in own.items()}}

    def start(key: Any) -> Any:
        many = jax.vmap(latent.start, in_axes=(0, None))(jax.random.split(key, STARTING_DRAWS), example)
        return jnp.median(many, axis=0)

    keys = jax.random.split(jax.random.PRNGKey(seed), 2 * count)
    begin_all = jax.jit(jax.vmap(begin))
    state = begin_all(jax.jit(jax.vmap(start))(keys), arrays, jax.random.split(jax.random.PRNGKey(seed + 1), 2 * count))
    at_truth = begin_all(jnp.concatenate([state.z[:count], truth]), arrays, keys)
    if not np.all(np.isfinite([state.potential_energy, at_truth.potential_energy])):
        raise FitError("the log-density is not finite where a chain starts")
    # Iterations before which the second chains are put at the true values: the first kept one, and one at random.
    again = np.random.default_rng(seed).integers(0, settings.draws + 1, count)
    restart = np.full((2, 2 * count), -1)
    restart[:, count:] = settings.warmup + np.stack([np.zeros_like(again), again])

    @jax.jit
    def advance(state: Any, first: Any, steps: Any) -> Any:
        def one(i: Any, carry: Any) -> Any:
            state, z, diverging = carry
            now = jnp.any(jnp.asarray(restart) == first + i, axis=0)
            back = at_truth._replace(i=state.i, adapt_state=state.adapt_state, rng_key=state.rng_key)
            state = jax.vmap(lambda now, a, b: jax.tree.map(lambda a, b: jnp.where(now, a, b), a, b))(now, back, state)
            state = jax.vmap(lambda state, arrays: sample(state, (arrays,)))(state, arrays)
            return state, z.at[i].set(state.z), diverging + state.diverging

        empty = jnp.zeros((STEPS, *state.z.shape), state.z.dtype)
        return jax.lax.fori_loop(0, steps, one, (state, empty, jnp.zeros(2 * count, dtype=int)))

    parts, diverging = [], np.zeros(2 * count, dtype=int)
    with progress.bar("NUTS", settings.warmup + settings.draws) as tick:
        for first, total in ((0, settings.warmup), (settings.warmup, settings.draws)):
            for done in range(0, total, STEPS):
                steps = min(STEPS, total - done)
                state, z, own_diverging = advance(state, first + done, steps)
                if first:
                    parts.append(np.asarray(z)[:steps])
                    diverging += np.asarray(own_diverging)
                tick(steps)
    draws = np.concatenate(parts).swapaxes(0, 1)
    return Chains(draws[:count], draws[count:], diverging[:count])
