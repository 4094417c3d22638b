"""Reports as one HTML file each: style, script and pictures are inside."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from bmtl._files import replacing
from bmtl.advice import plots
from bmtl.report import graph, predictive, words
from bmtl.report.style import COLOURS, make

if TYPE_CHECKING:
    from bmtl.advice import Advice
    from bmtl.causal import Consequences
    from bmtl.results import Fit

PIXELS_PER_INCH = 96
SMALLEST, LARGEST = 0.65, 1.3
"""To what part of its size a picture may shrink on a narrow screen before it scrolls instead, and how far it grows."""


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: its address holds its data."""

    source: str
    alternative: str
    width: int
    height: int

    @property
    def least_width(self) -> int:
        return round(SMALLEST * self.width)

    @property
    def most_width(self) -> int:
        return round(LARGEST * self.width)


def render(advice: Advice) -> str:
    """The report as HTML.

    Parameters
    ----------
    advice : Advice

    Returns
    -------
    str
        A whole page that refers to nothing outside itself. The same advice gives the same page.
    """
    drawn = {name: (getattr(plots, name)(advice), said) for name, said in words.alternatives(advice).items()}
    drawn |= of_fit(advice.fit) | of_causes(advice.effects)
    answer = words.VERDICTS[advice.verdict]
    return page(
        "advice.html", f"{advice.question} – {answer}", drawn,
        advice=advice,
        answer=answer,
        in_words=words.in_words(advice.arrangement),
        checks=failed_first(advice.fit.checks),
        effects=advice.effects,
        settings={
            "evidence": advice.evidence, "time taken": words.duration(advice.seconds), **advice.fit.summary(),
            **advice.versions,
        },
    )


def of_fit(fit: Fit) -> dict[str, tuple[Figure, str]]:
    """Pictures that the pages of an advice and of a fit have in common: how it ran, and how it predicts."""
    drawn = predictive.pictures(fit)
    if plots.traced(fit):
        drawn["trace"] = (plots.trace(fit), words.trace_alternative(fit))
    return drawn


def of_causes(effects: Consequences[Any] | None) -> dict[str, tuple[Figure, str]]:
    """The picture of the graph of causes, where there is one."""
    if effects is None:
        return {}
    names = list(effects.tasks.names)
    edges = pd.DataFrame(effects.edge_probabilities, index=names, columns=names)
    return {"causes": (make(graph.draw, graph.size(edges), edges), graph.said(edges))}


def page(template: str, title: str, drawn: Mapping[str, tuple[Figure, str]], **values: Any) -> str:
    """A page from a template.

    Parameters
    ----------
    drawn : mapping
        Name of each picture to the figure and what it shows, in words.
    **values
        What else the template asks for.
    """
    pictures = {name: _picture(name, figure, said) for name, (figure, said) in drawn.items()}
    predicted = [name.removeprefix(predictive.OF) for name in pictures if name.startswith(predictive.OF)]
    return _environment().get_template(template).render(
        title=title, pictures=pictures, predicted=predicted, colours=COLOURS, **values
    )


def failed_first(checks: pd.DataFrame) -> pd.DataFrame:
    """Convergence checks in the order of what they mean for the reader."""
    return checks.sort_values(["needed", "passed"], ascending=[False, True], kind="stable")


def write(advice: Advice, path: str | Path) -> None:
    """Write the report of an advice; see `save`."""
    save(render(advice), path)


def save(text: str, path: str | Path) -> None:
    """Write a page, atomically: either the whole file is there or what was there before.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("bmtl", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "number": words.number, "percent": words.percent, "correlation": words.correlation,
    }
    made.filters.update(filters)
    made.globals.update(with_se=words.with_se, interval=words.interval)
    return made


def _picture(name: str, figure: Figure, alternative: str) -> Picture:
    settings: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": name}
    to = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Text stays text, and the reader's browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(to, format="svg", facecolor="white", metadata={"Date": None})
    width, height = (round(PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    data = base64.b64encode(to.getvalue().encode("utf-8")).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{data}", alternative, width, height)
