"""Training one network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bmtl.arrangement import Arrangement
from bmtl.errors import FitError
from bmtl.fitting.devices import choose
from bmtl.fitting.progress import Progress
from bmtl.tasks import Tasks
from bmtl.training.held_out import split
from bmtl.training.loop import Recipe, follow
from bmtl.training.network import Network
from bmtl.training.trained import Trained, history
from bmtl.trunks import Trunk


def train(
    trunk: Trunk,
    tasks: Tasks,
    *,
    arrangement: Arrangement | None = None,
    held_out: float = 0.0,
    device: str = "auto",
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Trained:
    """Train a network on several tasks by gradient descent: a point estimate.

    The network is the one of `SharedTrunk`, ``η_t(x) = c_t + φ(x)·w_t/√k``, and the losses are the negative
    log-likelihoods of the tasks' families. It begins at a draw of trunk and heads from their priors.

    Parameters
    ----------
    trunk : Trunk
        Such as ``bmtl.trunks.MLP((32,))``, or ``Module(net)``.
    tasks : Tasks
    arrangement : Arrangement, optional
        Which tasks share trunks and heads. Default: one trunk for all, a head each.
    held_out : float
        In [0, 1): share of the rows, drawn at random, that are not trained on; for early stopping and the history.
    device : str
        ``auto`` (CUDA if there is any), ``cpu`` or a torch device.
    seed : int
        Of the first parameters, the held-out rows and the batches. Same seed, same machine, same numbers.
    progress : bool, optional
        A progress bar; by default only on a terminal.
    **options
        ``weighting``, ``optimiser``, ``sampling``, ``stopping`` and ``epochs``: the fields of `bmtl.training.Recipe`.

    Returns
    -------
    Trained

    Raises
    ------
    TypeError, ValueError
        If an option is not one there is or out of range, or options exclude each other.
    TaskError
        If too few rows are left of a task, or the arrangement is of other tasks.
    FitError
        If a loss is not finite at the end.

    Examples
    --------
    >>> import bmtl, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 2))
    >>> Y = X @ rng.normal(size=(2, 2)) + rng.normal(size=(100, 2))
    >>> tasks = bmtl.Tasks.from_arrays(X, Y, families=["gaussian", "gaussian"])
    >>> trained = bmtl.train(bmtl.trunks.MLP((8,)), tasks, weighting=bmtl.training.Profiled(), epochs=50)
    >>> trained.predict(X).shape
    (100, 2)
    """
    recipe, network = Recipe(**options), Network(trunk, arrangement)
    _, device = choose("pyro", device, "svi")
    kept, held = split(tasks, held_out, seed)
    path = follow(network, kept, recipe, [seed], device, held, progress=Progress(progress))
    if not np.isfinite(path.train[-1]).all():
        bad = [name for name, loss in zip(tasks.names, path.train[-1, 0], strict=True) if not np.isfinite(loss)]
        raise FitError(f"the loss of {', '.join(bad)} is not finite after training: lower the learning rate")
    path.runs.profile(every=True)
    stopped = pd.array([None if epoch < 0 else int(epoch) for epoch in path.stopped[0]], dtype="Int64")
    return Trained(
        model=network,
        tasks=kept,
        recipe=recipe,
        sites={name: value[0] for name, value in path.runs.sites().items()},
        history=history(path, tasks.names),
        stops=pd.DataFrame({"task": tasks.names, "epoch": stopped}),
        seed=seed,
        device=device,
        seconds=path.seconds,
    )
