"""NUTS on Pyro: for checks against NumPyro, which is far faster."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS

from bmtl.data import Data, Design
from bmtl.engine.pyro import PyroEngine
from bmtl.fitting import settings as how
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.model import Model


def run(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: how.NUTS,
    seed: int,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Draws:
    """Fit by NUTS, one chain after another."""
    start = time.perf_counter()
    progress = progress or Progress(False)
    engine = PyroEngine(device)
    arrays = {name: torch.as_tensor(value, device=engine.device) for name, value in values.items()}

    def program() -> None:
        model.program(engine, Data(design, arrays))

    chains: list[dict[str, np.ndarray]] = []
    diverging = np.zeros((settings.chains, settings.draws), dtype=bool)
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        for chain in range(settings.chains):
            torch.manual_seed(seed + chain)
            kernel = NUTS(program, target_accept_prob=settings.target_accept, max_tree_depth=settings.max_tree_depth)
            mcmc = MCMC(
                kernel,
                num_samples=settings.draws,
                warmup_steps=settings.warmup,
                disable_progbar=not progress.visible,
            )
            mcmc.run()
            chains.append({name: value.cpu().numpy() for name, value in mcmc.get_samples().items()})
            diverging[chain, mcmc.diagnostics()["divergences"]["chain 0"]] = True
    return Draws(
        sites={name: np.stack([own[name] for own in chains]) for name in chains[0]},
        stats={"diverging": diverging},
        seconds=time.perf_counter() - start,
    )
