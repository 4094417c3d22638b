"""SVI and MAP on Pyro, on any torch device: several runs (restarts, and folds) as one batched program."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import array_api_compat.torch as xp
import numpy as np
import pyro
import torch

from bmtl.data import Data, Design, take_rows
from bmtl.engine.pyro import PyroEngine
from bmtl.fitting import powers
from bmtl.fitting.adam import Adam
from bmtl.fitting.checkpoint import Marks
from bmtl.fitting.devices import current
from bmtl.fitting.draws import Draws
from bmtl.fitting.gains import Gains
from bmtl.fitting.progress import Progress
from bmtl.fitting.pyro_guide import Guide
from bmtl.fitting.pyro_latent import Latent
from bmtl.fitting.repeated import repeated
from bmtl.fitting.robust import Robust
from bmtl.fitting.settings import MAP, SVI, draws_a_step, is_point, step_size, with_gains
from bmtl.fitting.settling import CHUNK, EVALUATION_DRAWS, STAGES, Settling, chunks
from bmtl.model import Model, in_trunk

if TYPE_CHECKING:
    from bmtl.fitting.distributed import Ranks

MOMENTUM = 0.9
"""Of gradient descent with gains."""

AT_ONCE = 2**17
"""Rows that are computed at once, over all runs or draws; larger programs are no faster and need more memory."""


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
    ranks: Ranks | None = None,
) -> list[Draws]:
    """Fit by SVI or MAP; arguments, results and errors as in `bmtl.fitting.numpyro_svi.run`, plus a torch device.

    With ``ranks`` all of them do it together, each on its own device, and all have the result. The global random state
    of torch is as it was afterwards.
    """
    progress = progress or Progress(False)
    start = time.perf_counter()
    stacked, seeks = each or [{}], powers.seeks(settings)
    restarts = settings.restarts if begin is None and not seeks else 1
    places = [(fold, restart) for fold in range(len(stacked)) for restart in range(restarts)]
    seeds = [1_000_003 * seed + 1_009 * fold + restart for fold, restart in places]
    # Flows, gains and powers that are sought are for one run.
    alone = draws_a_step(settings) > 1 or with_gains(settings) or seeks
    rows = min(settings.batch_size, design.n_rows)
    if ranks is not None:
        rows, device = -(-rows // ranks.size), str(ranks.device)
    step = 1 if alone else max(1, AT_ONCE // rows)
    marks = progress.marks if ranks is None else Marks()
    left = marks.last() or []
    done: list[PyroSVI] = []
    cuda = [device] if torch.device(device).type == "cuda" else []
    with current(device), torch.random.fork_rng(devices=cuda), pyro.validation_enabled(False):
        for at in range(0, len(places), step):
            own = {name: np.stack([stacked[fold][name] for fold, _ in places[at : at + step]]) for name in stacked[0]}
            svi = PyroSVI(model, design, settings, values, seeds[at : at + step], own, device, begin, seed, ranks)
            done.append(svi)
            if len(left) >= len(done):
                svi.restore(left[len(done) - 1])
            svi.train(progress, lambda: marks.leave(lambda: [own.state() for own in done]))
        found = [(svi, run) for svi in done for run in range(len(svi.seeds))]
        seconds = time.perf_counter() - start
        return [_best(found[at : at + restarts], seconds) for at in range(0, len(found), restarts)]


class PyroSVI:
    """Variational fits of one model side by side, each from its own starting point.

    Parameters
    ----------
    values : mapping
        Arrays of `bmtl.data.arrays`.
    seeds : sequence of int
        One a run.
    own : mapping
        Arrays that differ from run to run, with runs in the leading dimension, in the place of those of ``values``.
    begin : optional
        Parameters to start from; see `run`.
    seed : int
        Of the rows of minibatches. All runs see the same rows in the same order: their objectives then differ by what
        they are, not by luck.
    ranks : Ranks, optional
        Processes that do the same with other rows. Each draws the same random numbers and computes the whole of the
        prior and the guide's entropy beside its share of the likelihood, times the number of ranks: the mean over ranks
        is then what one process would compute.

    Attributes
    ----------
    flat : Tensor, shape (runs, parameters)
        Parameters of the guides; see `Guide`.
    """

    def __init__(
        self, model: Model, design: Design, settings: SVI | MAP, values: Mapping[str, np.ndarray],
        seeds: Sequence[int] = (0,), own: Mapping[str, np.ndarray] | None = None, device: str = "cpu",
        begin: Any = None, seed: int = 0, ranks: Ranks | None = None,
    ) -> None:
        def program(engine: PyroEngine, arrays: Mapping[str, Any], scale: Any = 1.0) -> None:
            model.program(engine, Data(design, arrays, scale))

        def held(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
            return {name: torch.as_tensor(value, device=device) for name, value in arrays.items()}

        self.settings, self.design, self.seeds, self.ranks = settings, design, seeds, ranks
        self.n_rows, self.batch = design.n_rows, min(settings.batch_size, design.n_rows)
        self.device = torch.device(device)
        own = own or {}
        cells = sum(
            float(value.sum()) / (len(seeds) if name in own else 1)
            for name, value in {**values, **own}.items() if name.startswith("mask/")
        )
        self.copies, self.part, self.summed = 1, slice(None), slice(None)
        if ranks is not None:
            self.copies, self.part, self.summed = ranks.size, ranks.share(self.batch), ranks.share(self.n_rows)
            # Of rows that are drawn a rank may need any.
            if self.batch == self.n_rows:
                values, own, self.summed = take_rows(values, self.part), take_rows(own, self.part), slice(None)
        self.own = held(own)
        self.arrays = held({name: value for name, value in values.items() if name not in own}) | self.own
        self.latent = Latent(program, device, self.of(0), partial(is_point, settings))
        self.in_trunk = torch.as_tensor(self.latent.where(in_trunk), device=self.device)
        self.seeks, self.before = powers.seeks(settings), torch.full((design.n_tasks,), torch.nan, device=self.device)
        if self.seeks and not self.in_trunk.any():
            raise powers.without_trunk(settings.weighting, model)  # type: ignore[union-attr]
        starts = []
        for each in seeds:
            torch.manual_seed(each)
            starts.append(self.latent.start().detach())
            self.guide = Guide(settings, self.latent.n_point, self.latent.size, self.device)
            starts[-1] = self.guide.start(starts[-1])
        if begin is not None:
            starts = [self.guide.flat(begin["params"])] * len(seeds)
            self.guide.flows.load_state_dict(begin["flows"])
        self.flat = torch.stack(starts).requires_grad_()
        self.known = self.latent.known(self.arrays, self.flat.shape[:1])
        self.settling = Settling(len(seeds), cells, chunks(settings.max_steps), warm=begin is not None)
        self._prepare(settings, cells, seed)

    def _prepare(self, settings: SVI | MAP, cells: float, seed: int) -> None:
        """What a step reads and writes, all of it on the device."""
        runs = len(self.seeds)
        self.leaves = [self.flat, *self.guide.flows.parameters()]
        # Flows serve one run only: the leading dimension of their parameters is that of it.
        self.params = [own.detach().reshape(runs, -1) for own in self.leaves]
        gains = with_gains(settings)
        # The step of a gradient is proportional to it, and it to the cells; those of Adam are not.
        self.first_rate = step_size(settings) / (cells if gains else 1.0)
        self.gains = Gains(self.params, self.first_rate, momentum=MOMENTUM) if gains else None
        self.adam, self.robust = Adam(self.params), Robust(self.params)
        self.rate = torch.full((runs,), self.first_rate, device=self.device)
        self.stand_for = self.n_rows / self.batch * self.copies
        self.scale = torch.full((), self.stand_for, device=self.device)
        self.noise = torch.zeros(runs, draws_a_step(settings), self.guide.n_noise, device=self.device)
        self.losses = torch.zeros(CHUNK, runs, device=self.device)
        if self.ranks is not None:
            # Gradients and losses in one piece.
            self.widths = [*(own.shape[1] for own in self.params), 1]
            self.pooled = torch.zeros(runs, sum(self.widths), device=self.device)
        self.seeking, self.passed = False, torch.zeros_like(self.before)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.total = [torch.zeros_like(own) for own in self.params]
        # Of the parameters over the chunks of the last stage.
        self.mean = [own.clone() for own in self.params]
        self.ended: list[torch.Tensor] = []
        self.generators = [torch.Generator(self.device).manual_seed(own) for own in (seed, *self.seeds)]

    def of(self, run: int) -> dict[str, torch.Tensor]:
        """The arrays of one run, with the rows that this process sums over."""
        arrays = take_rows(self.arrays, self.summed)
        return {name: value[run] if name in self.own else value for name, value in arrays.items()}

    def parameters(self, run: int) -> dict[str, Any]:
        """Parameters of a run, from which another can begin."""
        named = self.guide.named(self.flat[run].detach())
        flows = {name: value.cpu() for name, value in self.guide.flows.state_dict().items()}
        return {"params": {name: value.cpu().numpy() for name, value in named.items()}, "flows": flows}

    def negative_elbo(
        self, params: Mapping[str, torch.Tensor], noise: torch.Tensor, arrays: Mapping[str, Any], scale: Any = 1.0
    ) -> torch.Tensor:
        """One-draw estimate of −ELBO for each leading index of the noise.

        Of a Gaussian guide the entropy, and the mean log density of priors that are `Known` Gaussians, are in closed
        form.
        """
        guide, known = self.guide, self.known
        if guide.kind == "flow":
            free, log_q = guide.draw(params, noise)
            return log_q - self.latent.log_density(self._whole(params, free), arrays, scale)
        loc = torch.cat([params["point"], params["loc"]], -1) - known.loc
        prior = known.constant - 0.5 * (loc**2 @ known.precision)
        prior = prior - 0.5 * (guide.variance(params) @ known.precision[self.latent.n_point :])
        z = self._whole(params, guide.place(params, noise))
        return -prior - guide.entropy(params) - self.latent.log_density(z, arrays, scale, known.names)

    def _whole(self, params: Mapping[str, torch.Tensor], free: torch.Tensor) -> torch.Tensor:
        return torch.cat([params["point"].expand(*free.shape[:-1], -1), free], -1)

    def step(self) -> None:
        """One step of every run."""
        if self.ranks is None:
            self._move(*self._gradients())
        else:
            self._together(self.ranks, self._give, self._take)

    def _together(self, ranks: Ranks, give: Callable[[], None], take: Callable[[], None]) -> None:
        give()
        ranks.mean(self.pooled)
        take()

    def _give(self) -> None:
        """The part of a step that differs between ranks."""
        losses, gradients = self._gradients()
        torch.cat([*gradients, losses[:, None]], dim=1, out=self.pooled)

    def _take(self) -> None:
        """The part that is the same on all ranks."""
        *gradients, losses = self.pooled.split(self.widths, dim=1)
        self._move(losses[:, 0], gradients)

    def _gradients(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Losses of a step, ``(runs,)``, and their gradients by `leaves`, ``(runs, …)`` each."""
        arrays: Mapping[str, Any] = self.arrays
        rows, *others = self.generators
        if self.batch < self.n_rows:
            index = torch.randint(self.n_rows, (self.batch,), generator=rows, device=self.device)
            arrays = take_rows(arrays, index if self.ranks is None else index[self.part])
        for own, generator in zip(self.noise, others, strict=True):
            own.normal_(generator=generator)
        if self.seeking:
            self.arrays["power"] = self._sought(arrays)
            arrays = {**arrays, "power": self.arrays["power"]}
            self.passed += self.arrays["power"] / CHUNK
        losses = self.negative_elbo(self.guide.named(self.flat), self.noise.flatten(0, 1), arrays, self.scale)
        losses = losses.reshape(len(self.seeds), -1).mean(dim=1)
        gradients = torch.autograd.grad(losses.sum(), self.leaves)
        return losses.detach(), [own.reshape(len(self.seeds), -1) for own in gradients]

    def _move(self, losses: torch.Tensor, gradients: Sequence[torch.Tensor]) -> None:
        """A step along gradients."""
        held = self.robust(gradients)
        if self.gains is None:
            self.adam(held, self.rate)
        else:
            for own, gradient in zip(self.params, held, strict=True):
                own.grad = gradient
            self.gains.step()
        torch._foreach_add_(self.total, self.params)
        self.losses.index_copy_(0, self.at, losses[None])
        self.at += 1

    def _repeated(self) -> Callable[[], None]:
        """The step, to be done again and again."""
        if self.gains or self.seeks:
            return self.step
        if self.ranks is None:
            return repeated(self.step, self.generators, self.device)
        # Ranks wait for each other between the two parts: each is a graph of its own.
        parts = repeated(self._give, self.generators, self.device), repeated(self._take, [], self.device)
        return partial(self._together, self.ranks, *parts)

    @property
    def _kept(self) -> list[torch.Tensor]:
        """What steps change in place."""
        return [*self.params, *self.mean, *self.adam.state, *self.robust.state]

    def state(self) -> dict[str, Any]:
        """All that what is left of the training depends on, which `restore` takes up again."""
        return {
            "tensors": [own.cpu() for own in self._kept], "settling": self.settling.state(),
            "generators": self.ended or [own.get_state() for own in self.generators],
            "gains": None if self.gains is None else self.gains.state_dict()["state"],
            "powers": [self.arrays["power"].cpu(), self.before.cpu()] if self.seeks else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state` of the same runs."""
        for own, value in zip(self._kept, state["tensors"], strict=True):
            own.copy_(value)
        self.settling.restore(state["settling"])
        for generator, value in zip(self.generators, state["generators"], strict=True):
            generator.set_state(value)
        if self.gains is not None:
            self.gains.load_state_dict(self.gains.state_dict() | {"state": state["gains"]})
        if self.seeks:
            self.arrays["power"], self.before = (own.to(self.device) for own in state["powers"])

    def train(self, progress: Progress, leave: Callable[[], None] = lambda: None) -> None:
        """Optimise until the ELBOs have settled or the steps are spent; ``leave`` is called along the way."""
        settings, settling = self.settings, self.settling
        advance = self._repeated()
        with progress.bar(type(settings).__name__, settings.max_steps) as tick:
            for _ in range(0 if settling.settled.all() else settling.max_chunks - len(settling.trace)):
                self.scale.fill_(settling.likelihood * self.stand_for)
                self.rate.copy_(torch.as_tensor(self.first_rate * settling.factor))
                if self.gains is not None:
                    self.gains.param_groups[0]["lr"] = self.first_rate * settling.factor[0]
                self.at.zero_()
                torch._foreach_zero_(self.total)
                self.seeking, self.passed = self.seeks and settling.stage[0] == 0, torch.zeros_like(self.before)
                for _ in range(CHUNK):
                    advance()
                # The mean over the chunks of the last stage.
                weight = torch.as_tensor(1.0 / np.maximum(settling.last, 1) * (settling.last > 0), device=self.device)
                for own, total in zip(self.mean, self.total, strict=True):
                    own.lerp_(total / CHUNK, weight.float()[:, None])
                losses = self.losses.cpu().numpy().T
                settling.look(losses)
                if self.seeking and settling.stage[0] > 0:
                    self.arrays["power"] = self.passed
                tick(CHUNK, loss=float(losses.mean()))
                if settling.settled.all():
                    break
                leave()
        # Where steps were spent before the last stage there is no mean.
        there = torch.as_tensor(settling.stage >= len(STAGES) - 1, device=self.device)
        for own, value in zip(self.params, self.mean, strict=True):
            own.copy_(torch.where(there[:, None], value, own))
        self.ended = [own.get_state() for own in self.generators]
        self.elbo = np.array([self._elbo(run) for run in range(len(self.seeds))])

    def _sought(self, arrays: Mapping[str, Any]) -> torch.Tensor:
        """Powers after a step, of the one run that there is."""
        with torch.no_grad():
            params = self.guide.named(self.flat)
            z = self._whole(params, self.guide.draw(params, self.noise[:, 0])[0])[0]
        z, power = z.requires_grad_(), arrays["power"].clone().requires_grad_()
        # The log-density is linear in the powers: its derivative by one is that task's log-likelihood.
        density = self.latent.log_density(z, {**arrays, "power": power})
        (by_task,) = torch.autograd.grad(density, power, create_graph=True)
        pulls = torch.stack([torch.autograd.grad(own, z, retain_graph=True)[0] for own in by_task])[:, self.in_trunk]
        n = powers.cells(xp, Data(self.design, arrays))
        weighting = self.settings.weighting  # type: ignore[union-attr]
        found, self.before = powers.moved(xp, weighting, arrays["power"], self.before, by_task.detach(), pulls, n)
        return found

    @torch.no_grad()
    def _elbo(self, run: int) -> float:
        """Final ELBO; −∞ if it is not finite or the run failed."""
        n = 1 if isinstance(self.settings, MAP) else EVALUATION_DRAWS
        params, arrays = self.guide.named(self.flat[run]), self.of(run)
        each = [self.negative_elbo(params, own, arrays, self.copies) for own in self._noise(run, n)]
        elbo = -float(self._over_ranks(torch.cat(each)).mean())
        return -np.inf if self.settling.failed[run] or not np.isfinite(elbo) else elbo

    def _noise(self, run: int, n: int) -> list[torch.Tensor]:
        """Noise of n draws, as many together as are computed at once."""
        noise = torch.randn(n, self.guide.n_noise, generator=self.generators[1 + run], device=self.device)
        return list(noise.split(max(1, self.copies * AT_ONCE // self.n_rows)))

    def _over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over ranks."""
        return values if self.ranks is None else self.ranks.mean(values)

    @torch.no_grad()
    def draw(self, run: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Guide draws of a run's sites, and log p − log q of each."""
        params, arrays, sites, ratio = self.guide.named(self.flat[run]), self.of(run), [], []
        for noise in self._noise(run, self.settings.draws):
            free, log_q = self.guide.draw(params, noise)
            z = self._whole(params, free)
            sites.append(self.latent.constrain(z))
            ratio.append(self.latent.log_density(z, arrays, self.copies) - log_q)
        joined = {name: torch.cat([own[name] for own in sites]).cpu().numpy() for name in sites[0]}
        return joined, self._over_ranks(torch.cat(ratio)).cpu().numpy().astype(float)


def _best(runs: Sequence[tuple[PyroSVI, int]], seconds: float) -> Draws:
    """The draws of the best restart."""
    elbo = np.array([svi.elbo[run] for svi, run in runs])
    svi, run = runs[int(np.argmax(elbo))]
    traces = [np.array([chunk[own] for chunk in each.settling.trace]) for each, own in runs]
    trace = np.full((len(runs), max(map(len, traces))), np.nan)
    for own, row in zip(traces, trace, strict=True):
        row[: len(own)] = own
    sites, ratio = svi.draw(run)
    return Draws(
        sites={name: value[None] for name, value in sites.items()},
        trace=trace,
        elbo=elbo,
        guide=svi.parameters(run),
        log_ratio=ratio if isinstance(svi.settings, SVI) else None,
        settled=bool(svi.settling.settled[run]),
        powers=svi.arrays["power"].cpu().numpy().astype(float) if "power" in svi.arrays else None,
        seconds=seconds,
    )
