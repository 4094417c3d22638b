"""SVI and MAP on Pyro, on any torch device."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import pyro
import pyro.distributions as dist
import torch

from bmtl.data import Data, Design, take_rows
from bmtl.engine.pyro import PyroEngine
from bmtl.fitting import powers
from bmtl.fitting.draws import Draws
from bmtl.fitting.gains import Gains
from bmtl.fitting.progress import Progress
from bmtl.fitting.pyro_latent import Latent
from bmtl.fitting.robust import Robust
from bmtl.fitting.settings import FLOWS, HIDDEN, MAP, RANK, SVI, is_point, step_size
from bmtl.fitting.settling import CHUNK, EVALUATION_DRAWS, INIT_SCALE, Settling, chunks
from bmtl.model import Model, in_trunk

MOMENTUM = 0.9
"""Of gradient descent with gains."""


def run(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: SVI | MAP,
    seed: int,
    each: Sequence[Mapping[str, np.ndarray]] | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    begin: Any = None,
) -> list[Draws]:
    """Fit by SVI or MAP; arguments, results and errors as in `bmtl.fitting.numpyro_svi.run`, plus a torch device.

    Runs follow one another. The global random state of torch is as it was afterwards.
    """
    progress = progress or Progress(False)
    engine = PyroEngine(device)
    tensors = {name: torch.as_tensor(value, device=engine.device) for name, value in values.items()}
    out = []
    cuda = [engine.device] if engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), pyro.validation_enabled(False):
        for fold, own in enumerate(each or [{}]):
            start = time.perf_counter()
            arrays = tensors | {name: torch.as_tensor(value, device=engine.device) for name, value in own.items()}
            runs = []
            for restart in range(settings.restarts if begin is None and not powers.seeks(settings) else 1):
                torch.manual_seed(1_000_003 * seed + 1_009 * fold + restart)
                runs.append(PyroSVI(model, design, settings, arrays, engine, begin))
                runs[-1].train(progress)
            out.append(_best(runs, time.perf_counter() - start))
    return out


class PyroSVI:
    """One variational fit of one model, from one starting point.

    The guide is a Gaussian over the flat unconstrained latent vector; coordinates estimated by a point come first and
    have no spread.
    """

    def __init__(
        self, model: Model, design: Design, settings: SVI | MAP, arrays: Mapping[str, Any], engine: PyroEngine,
        begin: Any = None,
    ) -> None:
        def program(arrays: Mapping[str, Any], scale: float = 1.0) -> None:
            model.program(engine, Data(design, arrays, scale))

        self.settings = settings
        self.design = design
        self.arrays = dict(arrays)
        self.n_rows = design.n_rows
        self.device = engine.device
        self.latent = Latent(program, arrays, partial(is_point, settings))
        self.in_trunk = torch.as_tensor(self.latent.where(in_trunk), device=engine.device)
        self.seeks, self.before = powers.seeks(settings), torch.full((design.n_tasks,), torch.nan, device=engine.device)
        if self.seeks and not self.in_trunk.any():
            raise powers.without_trunk(settings.weighting, model)  # type: ignore[union-attr]
        self.cells = sum(float(value.sum()) for name, value in arrays.items() if name.startswith("mask/"))
        self.settling = Settling(1, self.cells, chunks(settings.max_steps), warm=begin is not None)
        first = self._initial() if begin is None else {
            name: torch.tensor(value, device=self.device) for name, value in begin["params"].items()
        }
        self.params = {name: value.requires_grad_() for name, value in first.items()}
        self.flows = torch.nn.ModuleList()
        size = len(self.params["loc"])
        if isinstance(settings, SVI) and settings.guide == "flow":
            for _ in range(FLOWS):
                self.flows.append(dist.transforms.affine_autoregressive(size, hidden_dims=[max(size, HIDDEN)]))
            if begin is not None:
                self.flows.load_state_dict(begin["flows"])
            self.flows.to(engine.device)

    @property
    def guide(self) -> dict[str, Any]:
        """Parameters, from which another run can begin."""
        own = {name: value.detach().cpu().numpy() for name, value in self.params.items()}
        return {"params": own, "flows": {name: value.cpu() for name, value in self.flows.state_dict().items()}}

    def _initial(self) -> dict[str, torch.Tensor]:
        z = self.latent.start().detach()
        params = {"point": z[: self.latent.n_point].clone(), "loc": z[self.latent.n_point :].clone()}
        loc = params["loc"]
        if isinstance(self.settings, MAP):
            return params
        params["log_scale"] = torch.full_like(loc, float(np.log(INIT_SCALE)))
        if self.settings.guide == "full_rank":
            params["tril"] = torch.zeros(len(loc), len(loc), device=self.device)
        if self.settings.guide == "low_rank":
            rank = min(len(loc), RANK)
            params["factor"] = 0.1 * torch.randn(len(loc), rank, device=self.device)
        return params

    def posterior(self) -> Any:
        """The guide's distribution over the coordinates that have one."""
        params = self.params
        if self.flows:
            return self._flow()
        if "log_scale" not in params:
            return dist.Delta(params["loc"], event_dim=1)
        # All in units of each coordinate's own scale: steps that are small for one are then not large for another.
        scale = torch.exp(params["log_scale"])
        if "tril" in params:
            unit = torch.eye(len(scale), device=self.device) + torch.tril(params["tril"], -1)
            return dist.MultivariateNormal(params["loc"], scale_tril=scale[:, None] * unit)
        if "factor" in params:
            return dist.LowRankMultivariateNormal(params["loc"], scale[:, None] * params["factor"], scale**2)
        return dist.Normal(params["loc"], scale).to_event(1)

    def _flow(self) -> Any:
        """``z = loc + scale · flows(ε)``; the same as `bmtl.fitting.numpyro_flow.flow`."""
        loc, scale = self.params["loc"], torch.exp(self.params["log_scale"])
        back = torch.arange(len(loc) - 1, -1, -1, device=self.device)
        parts: list[Any] = []
        for own in self.flows:
            parts += [own, dist.transforms.Permute(back)]
        place = torch.distributions.AffineTransform(loc, scale, event_dim=1, cache_size=1)
        base = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc)).to_event(1)
        return dist.TransformedDistribution(base, [*parts, place])

    def negative_elbo(self, arrays: Mapping[str, Any], scale: float = 1.0) -> torch.Tensor:
        """One-draw estimate of −ELBO, with the entropy of a Gaussian guide in closed form."""
        q = self.posterior()
        free = q.rsample()
        z = torch.cat([self.params["point"], free])
        loss = -self.latent.log_density(z, arrays, scale)
        if isinstance(self.settings, MAP):
            return loss
        return loss + (q.log_prob(free) if self.flows else -q.entropy())

    def train(self, progress: Progress) -> None:
        """Optimise until the ELBO has settled or the steps are spent."""
        settings = self.settings
        batch = min(settings.batch_size, self.n_rows)
        params = [*self.params.values(), *self.flows.parameters()]
        gains = isinstance(settings, SVI) and settings.optimiser == "gains"
        # The step of a gradient is proportional to it, and it to the cells; those of Adam are not.
        rate = step_size(settings) / (self.cells if gains else 1.0)
        optimiser: torch.optim.Optimizer = (
            Gains(params, rate, momentum=MOMENTUM) if gains else torch.optim.Adam(params, lr=rate)
        )
        held = Robust(params)
        losses, mean, steps = torch.zeros(CHUNK, device=self.device), [own.detach().clone() for own in params], 0
        with progress.bar(type(settings).__name__, settings.max_steps) as tick:
            for _ in range(chunks(settings.max_steps)):
                scale = self.settling.likelihood * self.n_rows / batch
                optimiser.param_groups[0]["lr"] = rate * self.settling.factor[0]
                seeking, passed = self.seeks and self.settling.stage[0] == 0, 0.0
                for step in range(CHUNK):
                    rows = self.arrays
                    if batch < self.n_rows:
                        rows = take_rows(rows, torch.randint(self.n_rows, (batch,), device=self.device))
                    if seeking:
                        self.arrays["power"] = self._sought(rows)
                        passed = passed + self.arrays["power"] / CHUNK
                    optimiser.zero_grad()
                    loss = self.negative_elbo(rows, scale)
                    loss.backward()
                    held()
                    optimiser.step()
                    losses[step] = loss.detach()
                    if self.settling.last[0]:
                        steps += 1
                        torch._foreach_lerp_(mean, [own.detach() for own in params], 1.0 / steps)
                self.settling.look(losses.cpu().numpy()[None])
                if seeking and self.settling.stage[0] > 0:
                    self.arrays["power"] = passed
                tick(CHUNK, loss=float(losses.mean()))
                if self.settling.settled.all():
                    break
        with torch.no_grad():
            if steps:
                torch._foreach_copy_(params, mean)
            particles = 1 if isinstance(settings, MAP) else EVALUATION_DRAWS
            elbo = float(np.mean([-float(self.negative_elbo(self.arrays)) for _ in range(particles)]))
            self.elbo = -np.inf if self.settling.failed[0] or not np.isfinite(elbo) else elbo

    def _sought(self, rows: Mapping[str, Any]) -> torch.Tensor:
        """Powers after a step."""
        with torch.no_grad():
            z = torch.cat([self.params["point"], self.posterior().sample()])
        z, power = z.requires_grad_(), rows["power"].clone().requires_grad_()
        # The log-density is linear in the powers: its derivative by one is that task's log-likelihood.
        density = self.latent.log_density(z, {**rows, "power": power})
        (by_task,) = torch.autograd.grad(density, power, create_graph=True)
        pulls = torch.stack([torch.autograd.grad(own, z, retain_graph=True)[0] for own in by_task])[:, self.in_trunk]
        n = powers.cells(xp, Data(self.design, rows))
        weighting = self.settings.weighting  # type: ignore[union-attr]
        found, self.before = powers.moved(xp, weighting, rows["power"], self.before, by_task.detach(), pulls, n)
        return found

    @torch.no_grad()
    def draw(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Guide draws of the sites, and log p − log q of each."""
        q = self.posterior()
        sites, ratio = [], []
        for _ in range(self.settings.draws):
            # Scored at once, while a flow remembers how it made the draw: to invert it is slow.
            free = q.sample()
            log_q = q.log_prob(free)
            z = torch.cat([self.params["point"], free])
            sites.append(self.latent.constrain(z))
            ratio.append(float(self.latent.log_density(z, self.arrays) - log_q))
        return {name: torch.stack([own[name] for own in sites]).cpu().numpy() for name in sites[0]}, np.array(ratio)


def _best(runs: list[PyroSVI], seconds: float) -> Draws:
    elbo = np.array([own.elbo for own in runs])
    best = runs[int(np.argmax(elbo))]
    trace = np.full((len(runs), max(len(own.settling.trace) for own in runs)), np.nan)
    for own, row in zip(runs, trace, strict=True):
        row[: len(own.settling.trace)] = np.concatenate(own.settling.trace)
    sites, ratio = best.draw()
    return Draws(
        sites={name: value[None] for name, value in sites.items()},
        trace=trace,
        elbo=elbo,
        guide=best.guide,
        log_ratio=ratio if isinstance(best.settings, SVI) else None,
        settled=bool(best.settling.settled.all()),
        powers=best.arrays["power"].cpu().numpy().astype(float) if "power" in best.arrays else None,
        seconds=seconds,
    )
