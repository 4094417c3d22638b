"""The loop that `bmtl.train` and the diagnostics of training share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch

from bmtl.data import take_rows
from bmtl.fitting.progress import Progress
from bmtl.tasks import Tasks
from bmtl.training.network import Network
from bmtl.training.runs import Runs
from bmtl.training.sampling import Batches, Cells, Sampling
from bmtl.training.stopping import Stopping, Watch
from bmtl.training.weightings import Step, Unitary, Weighting

Optimiser = Callable[[Iterable[Any]], torch.optim.Optimizer]
"""Takes parameters, in groups, such as ``functools.partial(torch.optim.Adam, lr=0.01)``."""

ADAM: Optimiser = partial(torch.optim.Adam, lr=0.01)

Look = Callable[[int, Runs], None]
"""Called at the start of an epoch, and after the last, with its number."""


@dataclass(frozen=True)
class Recipe:
    """How networks are trained. The fields are the options of `bmtl.train` and of the diagnostics of training.

    Parameters
    ----------
    weighting : Weighting
    optimiser : callable
        Takes parameters (in groups, as torch has them) and gives an optimiser of torch that acts on each number by
        itself, as all of torch's but LBFGS and Muon do: runs are trained side by side in the same tensors.
    sampling : Sampling
    stopping : Stopping, optional
        Needs held-out cells. Default: every task is trained for all epochs.
    epochs : int

    Raises
    ------
    TypeError
        If the weighting is none, or the optimiser cannot be called.
    ValueError
        If there is no epoch, or the weighting compares tasks that are never in one batch.
    """

    weighting: Weighting = field(default_factory=Unitary)
    optimiser: Optimiser = ADAM
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping | None = None
    epochs: int = 500

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be ≥ 1, got {self.epochs}")
        if isinstance(self.weighting, type) or not hasattr(self.weighting, "update"):
            raise TypeError(f"the weighting must be one of bmtl.training, such as Unitary(), got {self.weighting!r}")
        if not callable(self.optimiser):
            raise TypeError(
                "the optimiser must take parameters and give a torch optimiser, such as "
                f"functools.partial(torch.optim.Adam, lr=0.01), got {self.optimiser!r}"
            )
        if self.weighting.pulls and self.sampling.within_task:
            name = type(self.weighting).__name__
            raise ValueError(f"{name} compares the tasks' gradients, but batches within tasks have one task each")


@dataclass(frozen=True, eq=False)
class Path:
    """What training left behind. Times are the starts of the epochs, and the end of the last.

    Attributes
    ----------
    runs : Runs
        At the end.
    train, held : ndarray, shape (epochs + 1, runs, T)
        Mean negative log-likelihood a cell on the modelled scale; ``held`` is NaN without held-out cells.
    weights, noise : ndarray, shape (epochs + 1, runs, T)
        Factor on each task's loss, 0 once it has stopped, and its noise in the user's units.
    stopped : ndarray of int, shape (runs, T)
        Epoch at which each task stopped; −1 if it never did.
    seconds : float
    """

    runs: Runs
    train: np.ndarray
    held: np.ndarray
    weights: np.ndarray
    noise: np.ndarray
    stopped: np.ndarray
    seconds: float


def follow(
    network: Network, tasks: Tasks, recipe: Recipe, seeds: Sequence[int], device: str, held: Tasks | None = None,
    look: Look | None = None, progress: Progress | None = None,
) -> Path:
    """Train runs side by side, one a seed.

    With batches each run has an order of its own and they are trained one after another; see `paths`.

    Raises
    ------
    ValueError
        If there is early stopping and nothing is held out, or the weighting needs a trunk with parameters.
    """
    start = time.perf_counter()
    if recipe.stopping is not None and held is None:
        raise ValueError("stopping needs held-out cells: give held_out")
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), pyro.validation_enabled(False):
        training = _Training(network, tasks, recipe, seeds, device)
        unseen = None if held is None else training.runs.on_device(held)
        measured: list[tuple[np.ndarray, ...]] = []
        weights: list[np.ndarray] = []
        with (progress or Progress(False)).bar("epochs", recipe.epochs) as tick:
            for epoch in range(recipe.epochs + 1):
                training.runs.profile()
                if look is not None:
                    look(epoch, training.runs)
                measured.append(training.measure(unseen))
                training.watch.look(epoch, measured[-1][1])
                if epoch == recipe.epochs or not training.watch.active.any():
                    break
                training.epoch()
                weights.append(training.weights())
                tick(1, loss=float(measured[-1][0].mean()))
    weights.append(training.weights())
    losses, held_losses, noise = (np.stack(own) for own in zip(*measured, strict=True))
    seconds = time.perf_counter() - start
    return Path(training.runs, losses, held_losses, np.stack(weights), noise, training.watch.stopped, seconds)


def paths(
    network: Network, tasks: Tasks, recipe: Recipe, seeds: Sequence[int], device: str, held: Tasks | None = None,
    look: Look | None = None,
) -> list[Path]:
    """Train many runs: all side by side where a step sees all cells, else one after another."""
    together = recipe.sampling.batch_size is None
    return [
        follow(network, tasks, recipe, own, device, held, look)
        for own in ([list(seeds)] if together else [[seed] for seed in seeds])
    ]


class _Training:
    """Runs, an optimiser, and the state of a weighting."""

    def __init__(self, network: Network, tasks: Tasks, recipe: Recipe, seeds: Sequence[int], device: str) -> None:
        self.tasks, self.recipe = tasks, recipe
        self.runs = Runs(network, tasks, seeds, recipe.weighting.noise, device)
        if recipe.weighting.pulls and not self.runs.trunk:
            name, trunk = type(recipe.weighting).__name__, type(network.trunk).__name__
            raise ValueError(f"{name} works on the trunk's parameters, and {trunk} has none")
        shape = (len(seeds), tasks.n_tasks)
        self.watch = Watch(recipe.stopping, shape)
        self._optimiser = recipe.optimiser(self.runs.groups())
        like = torch.zeros(shape, device=device)
        self._weights = torch.full_like(like, torch.nan)
        self._state = recipe.weighting.start(tasks, seeds, like)
        self._share = self._tensor(tasks.n_tasks * recipe.sampling.shares(tasks.n_cells))
        self._batches = None if recipe.sampling.batch_size is None else Batches(recipe.sampling, tasks, seeds[0])

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.runs.device)

    def weights(self) -> np.ndarray:
        """Factors on the tasks' losses in the last step."""
        return self._weights.cpu().numpy()

    @torch.no_grad()
    def measure(self, unseen: Mapping[str, torch.Tensor] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses on what is trained on and on what is held out, and noises."""
        train = self.runs.losses(self.runs.arrays).cpu().numpy()
        held = np.full_like(train, np.nan) if unseen is None else self.runs.losses(unseen).cpu().numpy()
        return train, held, self.runs.noise().cpu().numpy()

    def epoch(self) -> None:
        """Take the steps of one epoch."""
        if self._batches is None:
            self._step(self.runs.arrays, self._share)
            return
        for cells, share in self._batches.epoch():
            self._step(self._take(cells), self._tensor(share))

    def _take(self, cells: Cells) -> dict[str, torch.Tensor]:
        """The rows of a batch, with other cells under the mask."""
        on = [rows[own] for rows, own in zip(self.tasks.rows, cells, strict=True)]
        rows = np.unique(np.concatenate(on))
        chosen = np.zeros((len(on), len(rows)), dtype=bool)
        for t, own in enumerate(on):
            chosen[t, np.searchsorted(rows, own)] = True
        index = torch.as_tensor(rows, device=self.runs.device)
        values = take_rows(self.runs.arrays, index)
        for name, members in self.runs.design.groups.items():
            mask = chosen[members] if self.tasks.layout == "wide" else chosen.any(axis=0)
            values[f"mask/{name}"] = torch.as_tensor(mask, device=self.runs.device)
        return values

    def _step(self, values: Mapping[str, torch.Tensor], share: torch.Tensor) -> None:
        runs, weighting = self.runs, self.recipe.weighting
        active = torch.as_tensor(self.watch.active, device=runs.device)
        engine = runs.run(values)
        share = share * active
        losses = share * runs.losses(values, engine)
        excess = pulls = None
        if weighting.pulls:
            excess, pulls = share * runs.excess(values, engine).detach(), runs.pulls(losses)
        update, self._state = weighting.update(self._state, Step(losses.detach(), active, excess, pulls))
        self._weights = update.weights * active
        self._optimiser.zero_grad()
        (update.weights * losses).sum().backward()
        if update.trunk is not None:
            runs.descend(update.trunk)
        some_stopped = not self.watch.active.all()
        before = {name: value.detach().clone() for name, value in runs.free.items()} if some_stopped else {}
        self._optimiser.step()
        if some_stopped:
            runs.put_back(before, active)
