"""The report of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bmtl import versions
from bmtl.advice import plots
from bmtl.report import diagram, html, words
from bmtl.report.style import make

if TYPE_CHECKING:
    from bmtl.results import Fit


def render(fit: Fit) -> str:
    """The report as HTML.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    str
        A whole page that refers to nothing outside itself. The same fit gives the same page.
    """
    arrangement, weights = fit.arrangement, _weights(fit)
    shown = weights.assign(task=weights["label"])
    drawn = {
        "arrangement": (
            make(diagram.draw, diagram.size(arrangement), arrangement), words.of_arrangement(arrangement)
        ),
        "noise": (plots.weights(shown), words.of_weights(shown)),
    }
    several, effects = fit.tasks.n_tasks > 1, fit.effects if fit.causal else None
    relations = fit.relations() if several else None
    if relations is not None:
        drawn["relations"] = (plots.relations(relations, arrangement), words.of_correlations(relations))
    drawn |= html.of_fit(fit) | html.of_causes(effects)
    return html.page(
        "fit.html", "A fit of " + (f"{fit.tasks.n_tasks} tasks" if several else f"“{fit.tasks.names[0]}”"), drawn,
        fit=fit,
        in_words=words.in_words(arrangement),
        weights=weights,
        elpd=None if fit.method == "map" or fit.powers else fit.elpd().set_index("task"),
        inputs=fit.inputs(),
        relations=relations,
        effects=effects,
        checks=html.failed_first(fit.checks),
        settings={**fit.summary(), **versions.installed()},
    )


def _weights(fit: Fit) -> pd.DataFrame:
    """`Fit.weights` with the numbers of observations, and what to call a row where noises differ by group."""
    table = fit.weights()
    table["n"] = table["task"].map(dict(zip(fit.tasks.names, fit.tasks.n_cells, strict=True)))
    if "group" not in table:
        return table.assign(label=table["task"])
    groups = [fit.tasks.noise_group[rows] for rows in fit.tasks.rows] if fit.tasks.noise_group is not None else []
    counts = np.stack([np.bincount(own, minlength=len(fit.tasks.noise_levels)) for own in groups])
    return table.assign(label=table["task"] + " · " + table["group"], n=counts.ravel())
