"""What a model is, and the steps that every shared-trunk program is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from bmtl.arrangement import Arrangement, Plan
from bmtl.data import Data, Design
from bmtl.engine import ENGINES
from bmtl.noise import ByGroup, Scale
from bmtl.relations import Heads
from bmtl.tasks import Tasks
from bmtl.trunks._base import layers
from bmtl.views import Views


@runtime_checkable
class Model(Protocol):
    """A frozen dataclass: its fields are the whole specification, `program` is the probabilistic program.

    A model whose outcomes act on each other has three more methods. ``runs(tasks, seed)`` proposes the `bmtl.runs.Runs`
    that are fitted and pooled, one for each value of what is summed out beforehand, which its program reads by
    `Engine.given`. ``explained(tasks)`` gives the tasks with those cells alone that the program explains given the
    others. ``given_prior(tasks, draws, seed)`` draws what it is given from its prior, a dict of ``draws × …``.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        """The arrangement in which this model holds these tasks."""

    def program(self, e: Any, data: Data) -> None:
        """Sample the latent variables and observe the data, in the engine ``e``."""


def explained(model: Any, tasks: Tasks) -> Tasks:
    """The tasks with the cells that a model explains: all, unless it says else."""
    found: Tasks = model.explained(tasks) if hasattr(model, "explained") else tasks
    return found


def has_causes(sites: Mapping[str, Any]) -> bool:
    """Whether sites are those of a model whose outcomes act on each other."""
    return "edge" in sites


def entering(e: Any, data: Data) -> Any:
    """Outcomes as they enter the linear predictors of other tasks, standardised, ``T × rows``; tasks share rows."""
    design = data.design
    values = {
        t: e.xp.astype(block.family.entering(e.xp, block.y), e.xp.float32)[..., j, :]
        for block in data.blocks() for j, t in enumerate(block.tasks)
    }
    every = e.xp.stack([values[t] for t in range(design.n_tasks)], axis=-2)
    return (every - e.asarray(design.cause_loc)[:, None]) / e.asarray(design.cause_scale)[:, None]


def functions(e: Any, data: Data, features: Any, w: Any, plan: Plan, views: Views | None = None) -> Any:
    """``f_h(x) = φ_{trunk of h}(x) · w_h / √k`` of the head h of each linear predictor.

    Parameters
    ----------
    features : array, shape (trunks or 1, rows, k)
        Of the rows of ``views.inputs``.
    w : array, shape (heads, k)
    views : Views, optional
        What each task sees of the inputs. Default: all.

    Returns
    -------
    array, shape (P, rows), or in the long layout (predictors of a task, rows)
        In the long layout those of each row's own task. Leading draw dimensions of features and heads broadcast.
    """
    w = w * w.shape[-1] ** -0.5
    views = views or Views.all_of(data.design)
    if data.task is not None and features.shape[-3] == len(views.seen) == 1:
        phi = e.xp.squeeze(features, axis=-3)
        return e.xp.stack([_of_own(e, data, phi, e.take(w, own, -2)) for own in _of_task(data, plan.head_of)], -2)
    f = views.functions(e, _of_heads(e, features, w, plan.trunk_of_head), plan)
    if data.task is None:
        return f
    own = [e.take(f, places, -2) for places in _of_task(data, np.arange(len(plan.head_of)))]
    each = data.task == e.asarray(np.arange(data.design.n_tasks))[:, None]
    return e.xp.stack([e.xp.sum(part * each, axis=-2) for part in own], axis=-2)


def _of_heads(e: Any, features: Any, w: Any, trunk_of_head: np.ndarray) -> Any:
    """Functions of all heads at all rows, ``H × rows``."""
    transposed = e.xp.matrix_transpose
    if features.shape[-3] == 1:
        # Rows first, as the gradient of the features is then too.
        return transposed(e.xp.matmul(e.xp.squeeze(features, axis=-3), transposed(w)))
    if len(trunk_of_head) == features.shape[-3]:
        return e.xp.matmul(features, w[..., None])[..., 0]
    parts = []
    for trunk in range(features.shape[-3]):
        (on,) = np.nonzero(trunk_of_head == trunk)
        parts.append(e.xp.matmul(w[..., on[0] : on[-1] + 1, :], transposed(features[..., trunk, :, :])))
    return e.xp.concat(parts, axis=-2)


def _of_task(data: Data, values: np.ndarray) -> np.ndarray:
    """What linear predictors have, ``predictors of a task × T``: all tasks of the long layout are of one family."""
    return values.reshape(data.design.n_tasks, -1).T


def _of_own(e: Any, data: Data, phi: Any, w: Any) -> Any:
    """``φ(x) · w_t`` at each row of its own task t only, ``rows``."""
    if data.segment is None:
        return e.xp.sum(phi * e.take(w, data.task, -2), axis=-1)
    parts = e.xp.reshape(phi, (*phi.shape[:-2], len(data.segment), -1, phi.shape[-1]))
    own = e.xp.matmul(parts, e.take(w, data.segment, -2)[..., None])[..., 0]
    return e.xp.reshape(own, (*own.shape[:-2], -1))


def _of_rows(e: Any, data: Data, values: Any, dims: int = 0) -> Any:
    """Of values a task, those of each row's own; ``dims`` dimensions follow that of the tasks."""
    if data.segment is None:
        return e.take(values, data.task, -1 - dims)
    own = e.take(values, data.segment, -1 - dims)
    at, size = own.ndim - dims, data.x.shape[0] // data.segment.shape[0]
    every = e.xp.broadcast_to(e.xp.expand_dims(own, axis=at), (*own.shape[:at], size, *own.shape[at:]))
    return e.xp.reshape(every, (*own.shape[: at - 1], -1, *own.shape[at:]))


def private(e: Any, features: Any, plan: Plan, widths: tuple[int, ...]) -> Any:
    """Features of each head's own: tanh layers between those of its trunk and its weights.

    Weights are ``Normal(0, 1/fan-in)`` and biases ``Normal(0, 1)``, each head's apart, as the sites ``head_w0``,
    ``head_b0`` and so on.

    Parameters
    ----------
    features : array, shape (trunks or 1, rows, k)

    Returns
    -------
    array, shape (heads, rows, widths[-1])
    """
    if features.shape[-3] > 1:
        features = e.take(features, plan.trunk_of_head, -3)
    return layers(e, "head_", features, plan.n_heads, widths)


def observe(
    e: Any, data: Data, f: Any, heads: Heads, plan: Plan, noise: Scale, causes: Any = 0.0
) -> None:
    """``η_p = c_p ± a_t f_h(x) + causes_p`` and the outcomes of every family given ``η`` and their noise.

    Parameters
    ----------
    f : array
        What `functions` gives.
    heads : Heads
        Their tasks' intercepts and amplitudes.
    noise : Scale
        Prior of the families' noise parameters.
    causes : array, shape (P, rows), optional
        What outcomes of other tasks add to linear predictors, where tasks share rows.
    """
    design = data.design
    a = e.take(heads.amplitude, plan.task_of, -1) * e.asarray(plan.sign)
    if data.task is None:
        eta = heads.intercept[..., None] + a[..., None] * f + causes
    for block in data.blocks():
        family, members = block.family, block.tasks
        # Linear predictors of the block's tasks, ``tasks × predictors of one``.
        (on,) = np.nonzero((plan.task_of[:, None] == members).any(axis=1))
        places = on.reshape(len(members), family.n_predictors)
        scale = noises(e, block.name, members, design, noise)
        if noises_a_task(noise, design) > 1:
            scale = _of_group(e, scale, data, len(members), family.noise_dims)
        elif data.task is None:
            scale = e.xp.expand_dims(scale, axis=-1 - family.noise_dims)
        else:
            scale = _of_rows(e, data, scale, family.noise_dims)
        if data.task is None:
            parts = [e.take(eta, own, -2) for own in places.T]
        else:
            parts = [
                _of_rows(e, data, e.take(heads.intercept, own, -1))
                + _of_rows(e, data, e.take(a, own, -1)) * f[..., j, :]
                for j, own in enumerate(places.T)
            ]
        joined = parts[0] if family.n_predictors == 1 else e.xp.stack(parts, axis=-1)
        e.observe(block, joined, scale, data.scale)


def noises(e: Any, block: str, members: np.ndarray, design: Design, prior: Scale) -> Any:
    """Draw the noises of a block's tasks, ``tasks`` (or ``tasks · groups``, of which groups are the faster index)."""
    each = noises_a_task(prior, design)
    unit = design.unit[np.repeat(members, each)]
    reference = design.reference[block.removeprefix("y_")][np.repeat(np.arange(len(members)), each)]
    return design.families[members[0]].sample_noise(e, noise_site(block), prior, unit, reference)


def noises_a_task(noise: Scale, design: Design) -> int:
    """Noises of each task: one, or one a group of rows.

    Raises
    ------
    ValueError
        If noises are to differ by group and the rows have none.
    """
    if not isinstance(noise, ByGroup):
        return 1
    if not design.levels:
        raise ValueError("noise by group needs tasks whose rows have groups: tasks.with_noise_groups(labels)")
    return len(design.levels)


def _of_group(e: Any, scale: Any, data: Data, tasks: int, noise_dims: int) -> Any:
    """Noise of each cell from those of all tasks and groups, of which groups are the faster index."""
    group, each = data.values["group"], len(data.design.levels)
    at = e.xp.stack([group + each * j for j in range(tasks)]) if data.task is None else group + each * data.task
    return scale[..., at] if noise_dims == 0 else scale[..., at, :]


def noise_site(block: str) -> str:
    """Name of the noise parameter of a block ``y_…``."""
    return "noise_" + block.removeprefix("y_")


def in_trunk(site: str) -> bool:
    """Whether a latent site belongs to a trunk: their names begin with ``trunk_``."""
    return site.startswith("trunk_")


def engines(model: Any) -> tuple[str, ...]:
    """Names of the engines that can run a model: its own, or those that can run its trunk."""
    return getattr(model, "engines", getattr(getattr(model, "trunk", None), "engines", ENGINES))


def specification(model: Any) -> dict[str, Any]:
    """A model (or any of its parts) as JSON: class name and fields, nested.

    A field that is no JSON has in its metadata, under ``saved``, the function that makes what stands for it.
    """
    if isinstance(model, Arrangement):
        return {"class": "Arrangement", **model.to_json()}
    if is_dataclass(model):
        return {
            "class": type(model).__name__,
            "fields": {
                field.name: field.metadata.get("saved", specification)(getattr(model, field.name))
                for field in fields(model)
            },
        }
    return model


__all__ = [
    "Model", "engines", "entering", "explained", "functions", "in_trunk", "noise_site", "observe", "private",
    "specification",
]
