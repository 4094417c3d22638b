"""NUTS on NumPyro for many data sets of one shape at once, for simulation studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from bmtl.data import Design
from bmtl.errors import FitError
from bmtl.fitting.numpyro_latent import Latent
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import NUTS
from bmtl.model import Model

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
    model: Model,
    design: Design,
    fixed: Mapping[str, Any],
    own: Mapping[str, np.ndarray],
    truth: np.ndarray,
    settings: NUTS,
    seed: int,
    progress: Progress | None = None,
) -> Chains:
    """Two chains for every data set, all of them as one vectorised program, compiled once for all data of its shape.

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
    common = {name: jnp.asarray(value) for name, value in {**fixed, **design.priors()}.items()}
    arrays = {name: jnp.concatenate([value, value]) for name, value in own.items()}
    example = {name: value[0] for name, value in own.items()}
    shapes = tuple((name, jax.ShapeDtypeStruct(a.shape, a.dtype)) for name, a in {**common, **example}.items())
    many = _compiled(_Problem(model, design.structure, shapes, settings, design))
    keys = jax.random.split(jax.random.PRNGKey(seed), 2 * count)
    z = many.start(keys, common, example)
    state = many.begin(z, common, arrays, jax.random.split(jax.random.PRNGKey(seed + 1), 2 * count))
    at_truth = many.begin(jnp.concatenate([state.z[:count], truth]), common, arrays, keys)
    if not np.all(np.isfinite([state.potential_energy, at_truth.potential_energy])):
        raise FitError("the log-density is not finite where a chain starts")
    # Iterations before which the second chains are put at the true values: the first kept one, and one at random.
    again = np.random.default_rng(seed).integers(0, settings.draws + 1, count)
    restart = np.full((2, 2 * count), -1)
    restart[:, count:] = settings.warmup + np.stack([np.zeros_like(again), again])
    parts, diverging = [], np.zeros(2 * count, dtype=int)
    with progress.bar("NUTS", settings.warmup + settings.draws) as tick:
        for first, total in ((0, settings.warmup), (settings.warmup, settings.draws)):
            for done in range(0, total, STEPS):
                steps = min(STEPS, total - done)
                state, z, own_diverging = many.advance(state, at_truth, restart, common, arrays, first + done, steps)
                if first:
                    parts.append(np.asarray(z)[:steps])
                    diverging += np.asarray(own_diverging)
                tick(steps)
    draws = np.concatenate(parts).swapaxes(0, 1)
    return Chains(draws[:count], draws[count:], diverging[:count])


class _Many:
    """The compiled pieces of chains of one program on many data sets."""

    def __init__(self, latent: Latent, settings: NUTS) -> None:
        self._settings = settings
        self._initial, self._sample = hmc(
            potential_fn_gen=lambda common, arrays: lambda z: -latent.log_density(z, {**common, **arrays})
        )
        self.start = jax.jit(lambda keys, common, example: latent.medians(keys, {**common, **example}))
        self.begin = jax.jit(jax.vmap(self._begin, in_axes=(0, None, 0, 0)))
        self.advance = jax.jit(self._advance)

    def _begin(self, z: Any, common: Any, arrays: Any, key: Any) -> Any:
        settings = self._settings
        return self._initial(
            z, settings.warmup, target_accept_prob=settings.target_accept, max_tree_depth=settings.max_tree_depth,
            model_args=(common, arrays), rng_key=key,
        )

    def _advance(
        self, state: Any, at_truth: Any, restart: Any, common: Any, arrays: Any, first: Any, steps: Any
    ) -> Any:
        def one(i: Any, carry: Any) -> Any:
            state, z, diverging = carry
            now = jnp.any(restart == first + i, axis=0)
            back = at_truth._replace(i=state.i, adapt_state=state.adapt_state, rng_key=state.rng_key)
            state = jax.vmap(lambda now, a, b: jax.tree.map(lambda a, b: jnp.where(now, a, b), a, b))(now, back, state)
            state = jax.vmap(lambda state, arrays: self._sample(state, (common, arrays)))(state, arrays)
            return state, z.at[i].set(state.z), diverging + state.diverging

        empty = jnp.zeros((STEPS, *state.z.shape), state.z.dtype)
        return jax.lax.fori_loop(0, steps, one, (state, empty, jnp.zeros(len(state.z), dtype=int)))


@dataclass(frozen=True)
class _Problem:
    """What a compiled program serves: all data of one structure and these shapes."""

    model: Model
    structure: tuple[Any, ...]
    shapes: tuple[tuple[str, Any], ...]
    settings: NUTS
    design: Design = field(compare=False)


@lru_cache(maxsize=8)
def _compiled(problem: _Problem) -> _Many:
    return _Many(Latent.of(problem.model, problem.design, dict(problem.shapes)), problem.settings)
