"""NUTS on NumPyro."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS, init_to_median

from bmtl.data import Data, Design
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.errors import FitError
from bmtl.fitting import settings as how
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.marginal import Marginal
from bmtl.model import Model

STATS = {"diverging": "diverging", "energy": "energy", "num_steps": "n_steps", "accept_prob": "acceptance_rate"}

STEPS = 10
"""Iterations of a compiled call: between two of them the sampler can be interrupted."""

STARTING_DRAWS = 15
"""Prior draws whose median a chain starts at."""


def run(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: how.NUTS,
    seed: int,
    progress: Progress | None = None,
) -> Draws:
    """Fit by NUTS, all chains as one vectorised program.

    Raises
    ------
    FitError
        If no point with a finite log-density is found to start from.
    TaskError, ValueError
        If the heads are to be integrated out but cannot be.
    """
    start = time.perf_counter()
    progress = progress or Progress(False)
    engine = NumPyroEngine()
    arrays = {name: jnp.asarray(value) for name, value in values.items()}

    marginal = Marginal(model, design, arrays) if settings.marginal else None

    def program() -> None:
        if marginal is not None:
            marginal.program(engine)
        else:
            model.program(engine, Data(design, arrays))

    kernel = NUTS(
        program,
        target_accept_prob=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        init_strategy=init_to_median(num_samples=STARTING_DRAWS),
    )
    keys = jax.random.split(jax.random.PRNGKey(seed), settings.chains)
    try:
        state = kernel.init(keys, settings.warmup, None, (), {})
    except RuntimeError as error:
        raise FitError(f"NUTS could not start {type(model).__name__}: {error}") from error
    read = jax.vmap(kernel.postprocess_fn((), {}))

    def look(state: Any) -> tuple[Any, Any]:
        return read(state.z), {ours: getattr(state, theirs) for theirs, ours in STATS.items()}

    @jax.jit
    def advance(state: Any, steps: Any) -> tuple[Any, Any]:
        def one(i: Any, carry: Any) -> Any:
            state, kept = carry
            state = kernel.sample(state, (), {})
            return state, jax.tree.map(lambda held, new: held.at[:, i].set(new), kept, look(state))

        shapes = jax.eval_shape(look, state)
        empty = jax.tree.map(lambda own: jnp.zeros((own.shape[0], STEPS, *own.shape[1:]), own.dtype), shapes)
        return jax.lax.fori_loop(0, steps, one, (state, empty))

    parts = []
    with progress.bar("NUTS", settings.warmup + settings.draws) as tick:
        for total, keep in ((settings.warmup, False), (settings.draws, True)):
            for done in range(0, total, STEPS):
                steps = min(STEPS, total - done)
                state, found = advance(state, steps)
                # Waits for the result, so that no call is under way when another is asked for.
                found = jax.tree.map(lambda value, steps=steps: np.asarray(value)[:, :steps], found)
                if keep:
                    parts.append(found)
                tick(steps)
    sites, stats = jax.tree.map(lambda *own: np.concatenate(own, axis=1), *parts)
    if marginal is not None:
        sites = marginal.complete(sites, seed)
    return Draws(
        sites=sites,
        stats=stats,
        seconds=time.perf_counter() - start,
    )
