"""Bayesian multi-task modelling: fit several related outcomes together, and say when doing so helps.

The names below are imported when they are first used, so that ``import bmtl`` loads neither an array library
nor a plotting library. The models that a fit is made with are imported on their own, from `bmtl.models`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bmtl._version import __version__
from bmtl.errors import ConvergenceWarning, FitError, PowerPosteriorWarning, TaskError, TaskWarning

if TYPE_CHECKING:
    from bmtl import causal, diagnostics, families, grouping, noise, relations, training, trunks
    from bmtl.advice import Advice, advise
    from bmtl.arrangement import Arrangement
    from bmtl.causal import EdgePrior
    from bmtl.fitting.fit import fit
    from bmtl.folds import Folds
    from bmtl.prior import prior_predictive
    from bmtl.results import Fit, load
    from bmtl.tasks import Tasks
    from bmtl.training.train import train
    from bmtl.training.trained import Trained

__all__ = [
    "Advice",
    "Arrangement",
    "ConvergenceWarning",
    "EdgePrior",
    "Fit",
    "FitError",
    "Folds",
    "PowerPosteriorWarning",
    "TaskError",
    "TaskWarning",
    "Tasks",
    "Trained",
    "__version__",
    "advise",
    "causal",
    "diagnostics",
    "families",
    "fit",
    "grouping",
    "load",
    "noise",
    "prior_predictive",
    "relations",
    "train",
    "training",
    "trunks",
]

_OBJECTS = {
    "Advice": "bmtl.advice",
    "Arrangement": "bmtl.arrangement",
    "EdgePrior": "bmtl.causal",
    "Fit": "bmtl.results",
    "Folds": "bmtl.folds",
    "Tasks": "bmtl.tasks",
    "Trained": "bmtl.training.trained",
    "advise": "bmtl.advice",
    "fit": "bmtl.fitting.fit",
    "load": "bmtl.results",
    "prior_predictive": "bmtl.prior",
    "train": "bmtl.training.train",
}
_SUBMODULES = frozenset(
    {"causal", "diagnostics", "families", "grouping", "noise", "relations", "training", "trunks"}
)


if not TYPE_CHECKING:  # a type checker that saw `__getattr__` would accept any name

    def __getattr__(name: str) -> Any:
        if name in _OBJECTS:
            value = getattr(import_module(_OBJECTS[name]), name)
        elif name in _SUBMODULES:
            value = import_module(f"bmtl.{name}")
        elif name == "models":
            raise AttributeError("bmtl does not import the models it can fit: write `import bmtl.models` first")
        else:
            raise AttributeError(f"module 'bmtl' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
