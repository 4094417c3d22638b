"""NUTS on NumPyro."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
    each: Sequence[Mapping[str, np.ndarray]] | None = None,
    progress: Progress | None = None,
) -> list[Draws]:
    """Fit by NUTS, all chains as one vectorised program, which is compiled once for all of ``each``.

    Parameters
    ----------
    each : sequence of mapping, optional
        One fit for each, one after another: arrays that replace those of ``values``.

    Raises
    ------
    FitError
        If no point with a finite log-density is found to start from.
    TaskError, ValueError
        If the heads are to be integrated out but cannot be.
    """
    progress = progress or Progress(False)
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    engine, out, sampler = NumPyroEngine(), [], None
    for own in each or [{}]:
        start = time.perf_counter()
        replaced = {name: jnp.asarray(value) for name, value in own.items()}
        marginal = Marginal(model, design, arrays | replaced) if settings.marginal else None
        if sampler is None or marginal is not None:

            def program(own: Mapping[str, Any], marginal: Marginal | None = marginal) -> None:
                if marginal is not None:
                    marginal.program(engine)
                else:
                    model.program(engine, Data(design, {**arrays, **own}))

            sampler = Sampler(program, settings, type(model).__name__)
        sites, stats = sampler.run(replaced, seed, progress)
        if marginal is not None:
            sites = marginal.complete(sites, seed)
        out.append(Draws(sites=sites, stats=stats, seconds=time.perf_counter() - start))
    return out


class Sampler:
    """Chains of one program.

    Parameters
    ----------
    program : callable
        Takes the arrays that differ from run to run.
    settings : NUTS
    name : str
        Of the model, for errors.
    """

    def __init__(self, program: Callable[[Mapping[str, Any]], None], settings: how.NUTS, name: str) -> None:
        self.program, self.settings, self.name = program, settings, name
        self._advance: Any = None

    def run(
        self, own: Mapping[str, Any], seed: int, progress: Progress
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Sites and sampler statistics, ``chains × draws × …``."""
        settings = self.settings
        # A kernel starts once only: its second start would map over chains twice.
        kernel = NUTS(
            self.program,
            target_accept_prob=settings.target_accept,
            max_tree_depth=settings.max_tree_depth,
            init_strategy=init_to_median(num_samples=STARTING_DRAWS),
        )
        keys = jax.random.split(jax.random.PRNGKey(seed), settings.chains)
        try:
            state = kernel.init(keys, settings.warmup, None, (own,), {})
        except RuntimeError as error:
            raise FitError(f"NUTS could not start {self.name}: {error}") from error
        self._advance = self._advance or _advance(kernel)
        phases = ((settings.warmup, False), (settings.draws, True))
        calls = [(min(STEPS, total - done), keep) for total, keep in phases for done in range(0, total, STEPS)]
        done, parts = 0, []
        if (left := progress.marks.last()) is not None:
            done, parts = left["calls"], left["parts"]
            leaves = [jnp.asarray(value) for value in left["leaves"]]
            state = jax.tree.unflatten(jax.tree.structure(state), leaves)

        def reached() -> dict[str, Any]:
            return {"calls": done, "parts": parts, "leaves": jax.tree.leaves(state)}

        with progress.bar("NUTS", settings.warmup + settings.draws) as tick:
            for steps, keep in calls[done:]:
                state, found = self._advance(state, own, steps)
                # Waits for the result, so that no call is under way when another is asked for.
                found = jax.tree.map(lambda value, steps=steps: np.asarray(value)[:, :steps], found)
                if keep:
                    parts.append(found)
                done += 1
                progress.marks.leave(reached)
                tick(steps)
        joined: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = jax.tree.map(
            lambda *own: np.concatenate(own, axis=1), *parts
        )
        return joined


def _advance(kernel: NUTS) -> Any:
    """State, the arrays of a run and a number of iterations (at most `STEPS`) to the state after them and the draws."""

    @jax.jit
    def advance(state: Any, own: Any, steps: Any) -> tuple[Any, Any]:
        read = jax.vmap(kernel.postprocess_fn((own,), {}))

        def look(state: Any) -> tuple[Any, Any]:
            return read(state.z), {ours: getattr(state, theirs) for theirs, ours in STATS.items()}

        def one(i: Any, carry: Any) -> Any:
            state, kept = carry
            state = kernel.sample(state, (own,), {})
            return state, jax.tree.map(lambda held, new: held.at[:, i].set(new), kept, look(state))

        shapes = jax.eval_shape(look, state)
        empty = jax.tree.map(lambda own: jnp.zeros((own.shape[0], STEPS, *own.shape[1:]), own.dtype), shapes)
        return jax.lax.fori_loop(0, steps, one, (state, empty))

    return advance
