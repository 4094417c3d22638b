"""NUTS on NumPyro."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc
from numpyro.infer.util import constrain_fn

from bmtl.data import Data, Design, pack, packed
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.errors import FitError
from bmtl.fitting import settings as how
from bmtl.fitting.draws import Draws
from bmtl.fitting.kept import kept
from bmtl.fitting.numpyro_latent import ONCE, Latent
from bmtl.fitting.progress import Progress
from bmtl.marginal import Marginal
from bmtl.model import Model

STATS = {"diverging": "diverging", "energy": "energy", "num_steps": "n_steps", "accept_prob": "acceptance_rate"}

STEPS = 10
"""Iterations of a compiled call: between two of them the sampler can be interrupted."""

ATTEMPTS = 10
"""Starts of all chains that are tried before a model is said to have no finite log-density."""


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
    # Numbers of the design are arguments of the compiled program, which then serves all data of its shape.
    arrays: dict[str, Any] = {**values, **design.priors()}
    folds: list[dict[str, Any]] = [dict(own) for own in each or [{}]]
    if "task" in values and (segments := packed(values["task"])) is not None:
        rows, task = segments
        arrays = pack(arrays, rows) | {"segment": task}
        folds = [pack(own, rows) for own in folds]
    common: dict[str, Any] = {name: jnp.asarray(value) for name, value in arrays.items()}
    out = []
    for own in folds:
        start = time.perf_counter()
        held: dict[str, Any] = common | {name: jnp.asarray(value) for name, value in own.items()}
        marginal = Marginal(model, design, held) if settings.marginal else None
        if marginal is not None:
            held[MOMENTS] = marginal.fixed
        leaves, shape = jax.tree.flatten(held)
        key = model, design.structure, settings, shape, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        sampler = kept(_COMPILED, key, partial(Sampler, model, design, settings, held), KEPT)
        sites, stats = sampler.run(held, seed, progress)
        if marginal is not None:
            sites = marginal.complete(sites, seed, partial(sampler.coefficients, held))
        out.append(Draws(sites=sites, stats=stats, seconds=time.perf_counter() - start))
    return out


KEPT = 16
"""Models whose compiled samplers are kept for other data of the same structure."""

MOMENTS = "moments"
"""Where the arrays of a run hold its `bmtl.marginal.Moments`."""

_COMPILED: dict[Any, Sampler] = {}


class Sampler:
    """The compiled pieces of chains of one model on data of one structure.

    Parameters
    ----------
    model : Model
    design : Design
        Its numbers are replaced by those of the arrays.
    settings : NUTS
    arrays : mapping
        Arrays of one run, for their shapes.
    """

    def __init__(self, model: Model, design: Design, settings: how.NUTS, arrays: Mapping[str, Any]) -> None:
        self.model, self.design, self.settings = model, design, settings
        self.latent = Latent(self._program, arrays, lambda site: False)
        # Traced once, whatever number of times the sampler asks for it.
        energy = jax.jit(lambda z, own: -self.latent.log_density(z, own))
        self._initial, self._sample = hmc(potential_fn_gen=lambda own: lambda z: energy(z, own))
        keys = jax.random.split(jax.random.PRNGKey(0), settings.chains)
        # Programs are traced here, as NumPyro's handlers are global; the first is compiled beside what follows.
        with ThreadPoolExecutor(1) as pool:
            start = jax.jit(self._start).lower(keys, arrays)
            started = pool.submit(start.compile, ONCE)
            self.advance = jax.jit(self._advance).lower(start.out_info, arrays, np.int32(STEPS)).compile()
            self.start = started.result()
        self.coefficients = jax.jit(lambda own, sites, keys: self._marginal(own).coefficients(sites, keys))

    def _marginal(self, own: Mapping[str, Any]) -> Marginal:
        return Marginal(self.model, self.design.given(own), own, own[MOMENTS])

    def _program(self, own: Mapping[str, Any], scale: Any = 1.0) -> None:
        if self.settings.marginal:
            self._marginal(own).program(NumPyroEngine())
        else:
            self.model.program(NumPyroEngine(), Data(self.design.given(own), own, scale))

    def _start(self, keys: Any, own: Mapping[str, Any]) -> Any:
        """State of the chains before their first iteration, each at a median of draws from the prior."""

        def one(point: Any, key: Any) -> Any:
            return self._initial(
                point, self.settings.warmup, target_accept_prob=self.settings.target_accept,
                max_tree_depth=self.settings.max_tree_depth, model_args=(own,), rng_key=key,
            )

        both = jax.vmap(jax.random.split)(keys)
        return jax.vmap(one)(self.latent.medians(both[:, 0], own), both[:, 1])

    def run(
        self, own: Mapping[str, Any], seed: int, progress: Progress
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Sites and sampler statistics, ``chains × draws × …``.

        Parameters
        ----------
        own : mapping
            Arrays, and the numbers of the design, of this run.
        """
        settings = self.settings
        for attempt in range(ATTEMPTS):
            key = jax.random.fold_in(jax.random.PRNGKey(seed), attempt)
            state = self.start(jax.random.split(key, settings.chains), own)
            if np.all(np.isfinite(state.potential_energy)) and np.all(np.isfinite(state.z_grad)):
                break
        else:
            raise FitError(f"NUTS could not start {type(self.model).__name__}: no point with a finite log-density")
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
                state, found = self.advance(state, own, np.int32(steps))
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

    def _advance(self, state: Any, own: Any, steps: Any) -> tuple[Any, Any]:
        """The state after so many iterations, at most `STEPS`, and their draws."""

        def read(z: Any) -> Any:
            return constrain_fn(self._program, (own,), {}, self.latent.named(z), return_deterministic=True)

        def look(state: Any) -> tuple[Any, Any]:
            return jax.vmap(read)(state.z), {ours: getattr(state, theirs) for theirs, ours in STATS.items()}

        def one(i: Any, carry: Any) -> Any:
            state, filled = carry
            state = jax.vmap(lambda own_state: self._sample(own_state, (own,)))(state)
            return state, jax.tree.map(lambda held, new: held.at[:, i].set(new), filled, look(state))

        shapes = jax.eval_shape(look, state)
        empty = jax.tree.map(lambda own: jnp.zeros((own.shape[0], STEPS, *own.shape[1:]), own.dtype), shapes)
        return jax.lax.fori_loop(0, steps, one, (state, empty))
