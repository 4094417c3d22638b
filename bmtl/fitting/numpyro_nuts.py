"""NUTS on NumPyro."""

from __future__ import annotations

import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_median

from bmtl.data import Data, Design
from bmtl.engine.numpyro import NumPyroEngine
from bmtl.errors import FitError
from bmtl.fitting import settings as how
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.model import Model

STATS = {"diverging": "diverging", "energy": "energy", "num_steps": "n_steps", "accept_prob": "acceptance_rate"}


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
    """
    start = time.perf_counter()
    progress = progress or Progress(False)
    engine = NumPyroEngine()
    arrays = {name: jnp.asarray(value) for name, value in values.items()}

    def program() -> None:
        model.program(engine, Data(design, arrays))

    kernel = NUTS(
        program,
        target_accept_prob=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        init_strategy=init_to_median(num_samples=15),
    )
    mcmc = MCMC(
        kernel,
        num_warmup=settings.warmup,
        num_samples=settings.draws,
        num_chains=settings.chains,
        chain_method="vectorized",
        progress_bar=progress.visible,
    )
    try:
        mcmc.run(jax.random.PRNGKey(seed), extra_fields=tuple(STATS))
    except RuntimeError as error:
        raise FitError(f"NUTS could not start {type(model).__name__}: {error}") from error
    stats = mcmc.get_extra_fields(group_by_chain=True)
    return Draws(
        sites={name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()},
        stats={ours: np.asarray(stats[theirs]) for theirs, ours in STATS.items()},
        seconds=time.perf_counter() - start,
    )
