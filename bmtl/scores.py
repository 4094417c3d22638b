"""How well a fit predicts cells that it has not seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bmtl import replay, task_noise
from bmtl._frames import quoted
from bmtl._inputs import inputs_like
from bmtl.errors import TaskError
from bmtl.model import has_causes
from bmtl.tasks import Tasks

if TYPE_CHECKING:
    from bmtl.results import Fit
    from bmtl.training.trained import Trained


def score(fit: Fit | Trained, new: Tasks) -> pd.DataFrame:
    """Log predictive density of new cells; see `Fit.score`."""
    tasks = fit.tasks
    unknown = [name for name in new.names if name not in tasks.names]
    if unknown:
        raise TaskError(f"not in the fit: {quoted(unknown)}; it has {quoted(tasks.names, shown=20)}")
    families = {name: tasks.families[tasks.index(name)] for name in new.names}
    other = [name for name, family in zip(new.names, new.families, strict=True) if family != families[name]]
    if other:
        raise TaskError(f"of another family, or with other labels, than in the fit: {quoted(other)}")
    if new.layout != tasks.layout:
        raise TaskError(f"the fit's tasks are {tasks.layout}, the new ones {new.layout}: make both in the same way")
    causal = has_causes(fit.flat)
    if causal and len(new.names) < tasks.n_tasks:
        missing = [name for name in tasks.names if name not in new.names]
        raise TaskError(f"outcomes of {type(fit.model).__name__} are scored given their causes: give {quoted(missing)}")
    groups = None
    if task_noise.by_group(fit) > 1:
        labels = None if new.noise_group is None else np.array(new.noise_levels)[new.noise_group]
        groups = task_noise.new_groups(fit, labels, new.n_rows)
    place = {name: t for t, name in enumerate(new.names)}
    kept: dict[str, Any] = {
        # Tasks without new cells stay, empty, because the fit's sites are theirs too.
        field: tuple(
            getattr(new, field)[place[name]] if name in place else getattr(tasks, field)[t][:0]
            for t, name in enumerate(tasks.names)
        )
        for field in ("rows", "y", "exposure")
    }
    marks = tuple(new.intervened[place[name]] for name in tasks.names) if causal and new.intervened else ()
    there = replace(tasks, X=inputs_like(tasks, new), **kept, noise_group=groups, intervened=marks)
    found = dict(zip(tasks.names, replay.log_predictive(fit.model, there, fit.flat, fitted=tasks), strict=True))
    rows = [(name, len(own), own.mean(), own.std() / np.sqrt(len(own))) for name in new.names for own in [found[name]]]
    return pd.DataFrame(rows, columns=["task", "n", "lpd", "se"])
