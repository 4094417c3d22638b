"""SVI and MAP on Pyro, on any torch device."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
)
from pyro.infer.autoguide.initialization import init_to_sample

from bmtl.data import Data, Design, take_rows
from bmtl.engine.pyro import PyroEngine
from bmtl.errors import FitError
from bmtl.fitting.draws import Draws
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import MAP, SVI
from bmtl.fitting.settling import CHUNK, EVALUATION_DRAWS, INIT_SCALE, Settling
from bmtl.model import Model, in_trunk

GUIDES: dict[str, Any] = {
    "mean_field": AutoDiagonalNormal,
    "low_rank": AutoLowRankMultivariateNormal,
    "full_rank": AutoMultivariateNormal,
}


def run(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: SVI | MAP,
    seed: int,
    masks: Sequence[Mapping[str, np.ndarray]] | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[Draws]:
    """Fit by SVI or MAP; arguments, results and errors as in `bmtl.fitting.numpyro_svi.run`, plus a torch device.

    The global random state of torch, and Pyro's parameter store, are as they were afterwards.
    """
    progress = progress or Progress(False)
    engine = PyroEngine(device)
    tensors = {name: _tensor(value, engine) for name, value in values.items()}
    out = []
    cuda = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), pyro.get_param_store().scope(), pyro.validation_enabled(False):
        for fold, own in enumerate(masks or [{}]):
            arrays = tensors | {name: _tensor(value, engine) for name, value in own.items()}
            out.append(_best_of_restarts(model, design, arrays, settings, seed + 1000 * fold, engine, progress))
    return out


def _tensor(value: np.ndarray, engine: PyroEngine) -> Any:
    return torch.as_tensor(value, device=engine.device)


def _best_of_restarts(
    model: Model,
    design: Design,
    arrays: Mapping[str, Any],
    settings: SVI | MAP,
    seed: int,
    engine: PyroEngine,
    progress: Progress,
) -> Draws:
    start = time.perf_counter()
    runs = [_one(model, design, arrays, settings, seed + r, engine, progress) for r in range(settings.restarts)]
    elbo = np.array([own["elbo"] for own in runs])
    best = runs[int(np.argmax(elbo))]
    longest = max(len(own["trace"]) for own in runs)
    trace = np.full((len(runs), longest), np.nan)
    for own, row in zip(runs, trace, strict=True):
        row[: len(own["trace"])] = own["trace"]
    return Draws(
        sites={name: value[None] for name, value in best["sites"].items()},
        trace=trace,
        elbo=elbo,
        log_ratio=best["log_ratio"] if isinstance(settings, SVI) else None,
        settled=best["settled"],
        seconds=time.perf_counter() - start,
    )


def _one(
    model: Model,
    design: Design,
    arrays: Mapping[str, Any],
    settings: SVI | MAP,
    seed: int,
    engine: PyroEngine,
    progress: Progress,
) -> dict[str, Any]:
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    batch = min(settings.batch_size, design.n_rows)

    def program(arrays: Mapping[str, Any], scale: float = 1.0) -> None:
        model.program(engine, Data(design, arrays, scale))

    guide = _guide(settings, program, arrays)
    guide(arrays)
    parameters = list(guide.parameters())
    adam = torch.optim.Adam(parameters, lr=settings.learning_rate)
    elbo = Trace_ELBO()
    cells = float(sum(value.sum() for name, value in arrays.items() if name.startswith("mask/")))
    settling = Settling(1, cells)
    with progress.bar(type(settings).__name__, settings.max_steps) as tick:
        for number in range(-(-settings.max_steps // CHUNK)):
            adam.param_groups[0]["lr"] = settings.learning_rate * settling.factor
            losses = torch.zeros(CHUNK)
            for step in range(CHUNK):
                rows = arrays
                if batch < design.n_rows:
                    rows = take_rows(arrays, torch.randint(design.n_rows, (batch,), device=engine.device))
                adam.zero_grad()
                loss = elbo.differentiable_loss(program, guide, rows, design.n_rows / batch)
                loss.backward()
                adam.step()
                losses[step] = loss.detach()
            if not torch.isfinite(losses[-1]):
                raise FitError(f"the ELBO of {type(model).__name__} is not finite after {(number + 1) * CHUNK} steps")
            settling.look(losses.numpy()[None])
            tick(CHUNK, loss=float(losses.mean()))
            if settling.settled:
                break
    drawn = [_draw(program, guide, arrays) for _ in range(max(settings.draws, 1))]
    ratio = np.array([log_ratio for _, log_ratio in drawn])
    return {
        "sites": {name: np.stack([sites[name] for sites, _ in drawn]) for name in drawn[0][0]},
        "log_ratio": ratio,
        "elbo": float(np.mean(ratio[:EVALUATION_DRAWS])),
        "trace": np.concatenate(settling.trace),
        "settled": settling.settled,
    }


def _guide(settings: SVI | MAP, program: Any, arrays: Mapping[str, Any]) -> Any:
    point = partial(AutoDelta, init_loc_fn=init_to_sample)
    if isinstance(settings, MAP):
        return point(program)
    spread = partial(GUIDES[settings.guide], init_loc_fn=init_to_sample, init_scale=INIT_SCALE)
    sites = pyro.poutine.trace(program).get_trace(arrays).nodes
    latent = {name for name, site in sites.items() if _latent(site)}
    trunk = {name for name in latent if in_trunk(name)}
    if settings.trunk == "guide" or not trunk:
        return spread(program)
    guide = AutoGuideList(program)
    guide.append(point(pyro.poutine.block(program, hide=sorted(latent - trunk))))
    guide.append(spread(pyro.poutine.block(program, hide=sorted(trunk))))
    return guide


@torch.no_grad()
def _draw(program: Any, guide: Any, arrays: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], float]:
    """One guide draw, and its log p − log q."""
    trace = pyro.poutine.trace(guide).get_trace(arrays)
    joint = pyro.poutine.trace(pyro.poutine.replay(program, trace=trace)).get_trace(arrays)
    sites = {name: site["value"].cpu().numpy() for name, site in joint.nodes.items() if _latent(site)}
    return sites, float(joint.log_prob_sum() - trace.log_prob_sum())


def _latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]
