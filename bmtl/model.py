"""What a model is, and the steps that every shared-trunk program is made of."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from bmtl.arrangement import Arrangement
from bmtl.data import Data
from bmtl.noise import Scale


@runtime_checkable
class Model(Protocol):
    """A frozen dataclass: its fields are the whole specification, `program` is the probabilistic program."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        """The arrangement in which this model holds these tasks."""

    def program(self, e: Any, data: Data) -> None:
        """Sample the latent variables and observe the data, in the engine ``e``."""


def functions(e: Any, features: Any, heads: Any, trunk_of_head: np.ndarray) -> Any:
    """``f_h(x) = φ_{trunk of h}(x) · w_h / √k``.

    Parameters
    ----------
    features : array, shape (trunks or 1, rows, k)
    heads : array, shape (heads, k)
    trunk_of_head : ndarray of int, shape (heads,)
        Ascending.

    Returns
    -------
    array, shape (heads, rows)
        Leading draw dimensions of features and heads broadcast.
    """
    heads = heads * heads.shape[-1] ** -0.5
    if features.shape[-3] == 1:
        return e.xp.matmul(heads, e.xp.matrix_transpose(features[..., 0, :, :]))
    if len(trunk_of_head) == features.shape[-3]:
        return e.xp.matmul(features, heads[..., None])[..., 0]
    parts = []
    for trunk in range(features.shape[-3]):
        (on,) = np.nonzero(trunk_of_head == trunk)
        own = heads[..., on[0] : on[-1] + 1, :]
        parts.append(e.xp.matmul(own, e.xp.matrix_transpose(features[..., trunk, :, :])))
    return e.xp.concat(parts, axis=-2)


def observe(
    e: Any, data: Data, f: Any, head_of_task: np.ndarray, sign: np.ndarray, amplitude: Scale, noise: Scale
) -> None:
    """``η_t = c_t ± a_t f_{head of t}(x)`` and the outcomes of every family given ``η`` and their noise.

    Parameters
    ----------
    f : array, shape (heads, rows)
    head_of_task, sign : ndarray, shape (T,)
    amplitude, noise : Scale
        Priors of ``a_t`` and of the families' noise parameters.
    """
    design = data.design
    no_unit = np.ones(design.n_tasks)
    a = amplitude.sample(e, "amplitude", design.amplitude_scale, no_unit) * e.asarray(sign)
    intercept = e.dist.Normal(e.asarray(design.intercept_loc), e.asarray(design.intercept_scale))
    c = e.sample("intercept", intercept.to_event(1))
    if data.task is None:
        eta = c[..., None] + a[..., None] * f[..., head_of_task, :]
    else:
        # Each row belongs to one task: pick that task's head, row by row.
        of_task = e.asarray(head_of_task)[data.task]
        own = e.xp.sum(f * (of_task == e.asarray(np.arange(f.shape[-2]))[:, None]), axis=-2)
        eta = c[..., data.task] + a[..., data.task] * own
    for block in data.blocks():
        members = block.tasks
        if block.family.noise_name is None:
            scale = e.asarray(np.ones(len(members)))
        else:
            scale = noise.sample(e, noise_site(block.name), np.ones(len(members)), design.unit[members])
        if data.task is None:
            e.observe(block, eta[..., members, :], scale[..., None], data.scale)
        else:
            # Tasks of the long layout are of one family, so that the block's tasks are all tasks.
            e.observe(block, eta, scale[..., data.task], data.scale)


def noise_site(block: str) -> str:
    """Name of the noise parameter of a block ``y_…``."""
    return "noise_" + block.removeprefix("y_")


def in_trunk(site: str) -> bool:
    """Whether a latent site belongs to a trunk: their names begin with ``trunk_``."""
    return site.startswith("trunk_")


def specification(model: Any) -> dict[str, Any]:
    """A model (or any of its parts) as JSON: class name and fields, nested."""
    if isinstance(model, Arrangement):
        return {"class": "Arrangement", **model.to_json()}
    if is_dataclass(model):
        return {
            "class": type(model).__name__,
            "fields": {field.name: specification(getattr(model, field.name)) for field in fields(model)},
        }
    return model


__all__ = ["Model", "functions", "in_trunk", "noise_site", "observe", "specification"]
