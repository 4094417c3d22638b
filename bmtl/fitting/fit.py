"""Choosing an engine and a device, and fitting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bmtl import replay
from bmtl._inputs import require_inputs
from bmtl.data import Design
from bmtl.errors import ConvergenceWarning, FitError, PowerPosteriorWarning
from bmtl.fitting import powers
from bmtl.fitting.checkpoint import Checkpoint
from bmtl.fitting.devices import choose
from bmtl.fitting.draws import Draws
from bmtl.fitting.jobs import Job, Work
from bmtl.fitting.progress import Progress
from bmtl.fitting.settings import MAP, NUTS, SVI, Settings, learns_trunk, resolve, with_gains
from bmtl.model import Model, engines, explained
from bmtl.results import Fit
from bmtl.runs import Runs, pooled, proposed, values_of
from bmtl.tasks import Tasks

if TYPE_CHECKING:
    from bmtl.fitting.distributed import Ranks

SMALLEST_SPLIT = 10
"""Rows below which none are held out to choose how the trunk is treated."""


def fit(
    model: Model,
    tasks: Tasks,
    *,
    method: str | Settings = "svi",
    engine: str = "auto",
    device: str = "auto",
    seed: int = 0,
    progress: bool | None = None,
    executor: Executor | None = None,
    checkpoint: str | Path | None = None,
    distributed: bool = False,
    **options: Any,
) -> Fit:
    """Fit a model to tasks.

    Parameters
    ----------
    model : Model
        For example ``bmtl.models.SharedTrunk()``.
    tasks : Tasks
        One task or more.
    method : {"svi", "nuts", "map"} or SVI or NUTS or MAP
        Variational inference, the no-U-turn sampler, or the posterior mode. Its options (fields of
        `bmtl.fitting.SVI`, `NUTS`, `MAP`) are given by keyword, or with the object.
    engine : {"auto", "numpyro", "pyro"}
        ``auto`` is Pyro where SVI or MAP can run on CUDA or the trunk is a torch module, else NumPyro. The fit says
        which.
    device : str
        ``auto``, ``cpu`` or a torch device such as ``cuda``.
    seed : int
        Same seed, same machine, same numbers.
    progress : bool, optional
        Progress bars; by default only on a terminal.
    executor : concurrent.futures.Executor, optional
        Whose workers fit what does not depend on each other: the two ways of treating the trunk that are tried, and
        the runs of a model that proposes several. The result is the same with and without.
    checkpoint : str or Path, optional
        A folder, new or left by the same call: what a call that was killed had finished is not repeated, and fits on
        NumPyro go on where they were.
    distributed : bool
        Share every step's rows out between the processes of `torch.distributed`, all of which make the same call: SVI
        and MAP on Pyro, in a script that ``torchrun`` starts. The fit is that of one process up to the rounding of
        sums, and the same in all. Each works on the CUDA device of its local rank, where there is CUDA; only rank 0
        shows progress and reads and writes the checkpoint.

    Returns
    -------
    Fit
        Warned about if it did not pass its convergence checks (`ConvergenceWarning`) or if its target is not the
        posterior (`PowerPosteriorWarning`); it then says so itself too.

    Raises
    ------
    TaskError
        If tasks have no inputs.
    TypeError, ValueError
        If the model, the method, the engine or an option is not one there is, the checkpoint is of another call, or
        the processes that share a fit are not given the same.
    FitError
        If the log-density is not finite where the fit starts or goes, or the executor broke.

    Examples
    --------
    >>> import bmtl, numpy as np
    >>> from bmtl.models import SharedTrunk
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 2))
    >>> Y = X @ rng.normal(size=(2, 2)) + rng.normal(size=(100, 2))
    >>> tasks = bmtl.Tasks.from_arrays(X, Y, families=["gaussian", "gaussian"])
    >>> result = bmtl.fit(SharedTrunk(trunk=bmtl.trunks.Identity()), tasks, seed=0, restarts=1)
    >>> result.engine
    'numpyro'
    """
    check_model(model)
    require_inputs(tasks, type(model).__name__)
    name, settings = resolve(method, options)
    if engine == "auto" and (with_gains(settings) or distributed):
        engine = "pyro"
    engine, device = choose(engine, device, name, engines(model))
    ranks = None
    if distributed:
        from bmtl.fitting.distributed import Ranks

        ranks = Ranks.of(engine, device, settings, executor)
        device = ranks.device.type
    first = ranks is None or ranks.first
    kept = None
    if checkpoint is not None and first:
        kept = Checkpoint.of(checkpoint, model, tasks, settings, engine, device, seed)
    work = Work(Progress(progress if first else False), executor, kept, ranks)
    runs = proposed(model, tasks, seed)
    if runs is not None and isinstance(settings, MAP):
        runs = runs.likeliest()
    if runs is not None and powers.first(tasks, settings):
        raise ValueError(f"{type(model).__name__} weighs graphs by their posterior: fit it without a weighting")
    settings = choose_trunk(model, tasks, settings, engine, device, seed, work, runs)
    start, design = time.perf_counter(), Design.of(tasks)
    each = None if runs is None else runs.arrays
    values = values_of(model, tasks, design) | powers.first(tasks, settings)
    (found,) = work.sample([Job(model, design, values, settings, engine, device, seed, each)])

    def of(draws: Draws) -> Fit:
        return Fit(model=model, tasks=tasks, settings=settings, engine=engine, device=device, seed=seed, draws=draws)

    if runs is None:
        result = of(found[0])
    else:
        found = [runs.remembered(own, run) for run, own in enumerate(found)]
        result = of(pooled(runs, found, [of(own).checks for own in found], time.perf_counter() - start))
    if result.powers:
        text = f"{type(model).__name__}: the target is a {result.target}, not the posterior"
        warnings.warn(text, PowerPosteriorWarning, stacklevel=2)
    if not result.converged:
        warnings.warn(f"{type(model).__name__}: {result.problems}", ConvergenceWarning, stacklevel=2)
    return result


def sample(
    model: Model,
    design: Design,
    values: Mapping[str, np.ndarray],
    settings: Settings,
    engine: str,
    device: str,
    seed: int,
    each: Sequence[Mapping[str, np.ndarray]] | None,
    progress: Progress,
    begin: Any = None,
    ranks: Ranks | None = None,
) -> list[Draws]:
    """Posterior draws for every set of arrays that replace those of ``values`` (the masks of folds), or once for None.

    SVI and MAP run all of them side by side, NUTS one after another. They start from the guide
    ``begin`` if there is one, and share their rows out between ``ranks``, on Pyro.

    Raises
    ------
    FitError
        If the ELBO of no restart is finite, or a log-density is not where NUTS starts.
    """
    if isinstance(settings, NUTS):
        if engine == "pyro":
            if settings.marginal:
                raise ValueError("marginal=True is for the numpyro engine")
            from bmtl.fitting import pyro_nuts

            full = [{**values, **own} for own in each or [{}]]
            return [pyro_nuts.run(model, design, own, settings, seed, progress, device) for own in full]
        from bmtl.fitting import numpyro_nuts

        return numpyro_nuts.run(model, design, values, settings, seed, each, progress)
    if engine == "pyro":
        from bmtl.fitting import pyro_svi

        found = pyro_svi.run(model, design, values, settings, seed, each, progress, device, begin, ranks)
    else:
        from bmtl.fitting import numpyro_svi

        found = numpyro_svi.run(model, design, values, settings, seed, each, progress, begin)
    if any(draws.failed for draws in found):
        raise FitError(f"the ELBO of {type(model).__name__} is not finite")
    return found


def choose_trunk(
    model: Model, tasks: Tasks, settings: Settings, engine: str, device: str, seed: int, work: Work,
    runs: Runs | None = None,
) -> Settings:
    """Settings with ``trunk="auto"`` resolved.

    A point, if that predicts a held-out fifth of the rows better beyond noise (in the likeliest run, of several); else
    the guide.
    """
    if not isinstance(settings, SVI) or settings.trunk != "auto":
        return settings
    if not learns_trunk(model) or tasks.n_rows < SMALLEST_SPLIT:
        return replace(settings, trunk="guide")
    design = Design.of(tasks)
    values = values_of(model, tasks, design) | powers.first(tasks, settings)
    own_rows = explained(model, tasks).rows
    best = None if runs is None else runs.likeliest()
    if best is not None:
        values |= best.arrays[0]
    held = np.random.default_rng([seed, 2]).permutation(tasks.n_rows) % 5 == 0
    mask = {name: value & ~held for name, value in values.items() if name.startswith("mask/")}
    (rows,) = np.nonzero(held)
    ways = ("guide", "point")
    trials = [replace(settings, trunk=own, restarts=1, draws=min(settings.draws, 200)) for own in ways]
    found = work.sample([Job(model, design, values, own, engine, device, seed, [mask]) for own in trials])
    by_row = {}
    for trunk, (draws,) in zip(ways, found, strict=True):
        draws = draws if best is None else best.remembered(draws, 0)
        flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.sites.items()}
        by_row[trunk] = np.zeros(tasks.n_rows)
        for own, value in zip(own_rows, replay.log_predictive(model, tasks, flat, rows), strict=True):
            np.add.at(by_row[trunk], own[held[own]], value)
    gain = (by_row["point"] - by_row["guide"])[held]
    # A point overfits more the longer it is trained, so it must have earned its place beyond noise.
    clear = gain.sum() > 2.0 * np.sqrt(len(gain) * gain.var())
    return replace(settings, trunk="point" if clear else "guide")


def check_model(model: Any) -> None:
    """Raise TypeError unless ``model`` is a model (an instance, not its class)."""
    if isinstance(model, type) or not isinstance(model, Model):
        hint = f"; did you mean {model.__name__}()?" if isinstance(model, type) else ""
        raise TypeError(f"a model is needed, such as bmtl.models.SharedTrunk(), got {model!r}{hint}")
