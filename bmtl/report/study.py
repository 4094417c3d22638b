"""The report of an analysis: what was asked, the answer, and the tables and pictures that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bmtl import versions
from bmtl.report import html, words


@dataclass(frozen=True, eq=False)
class Section:
    """A heading with what stands below it.

    Parameters
    ----------
    heading : str
    text : str
    table : DataFrame, optional
        Its columns are the heads of the table, its index is not shown.
    caption : str
        What the table holds.
    picture : Figure, optional
    alternative : str
        What the picture shows, in words, with its main numbers; needed if there is one.
    note : str
        Below the picture: how it is read.

    Raises
    ------
    ValueError
        If a picture has no alternative, or a table no caption.
    """

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    caption: str = ""
    picture: Figure | None = None
    alternative: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.picture is not None and not self.alternative:
            raise ValueError(f"the picture of {self.heading!r} needs an alternative in words")
        if self.table is not None and not self.caption:
            raise ValueError(f"the table of {self.heading!r} needs a caption")

    @property
    def numeric(self) -> list[bool]:
        """Of each column of the table, whether it holds numbers."""
        kinds: list[Any] = [] if self.table is None else list(self.table.dtypes)
        return [pd.api.types.is_numeric_dtype(own) and not pd.api.types.is_bool_dtype(own) for own in kinds]


def render(
    question: str,
    answer: Sequence[str],
    sections: Sequence[Section],
    warnings: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> str:
    """The report as HTML.

    Parameters
    ----------
    question : str
    answer : sequence of str
        The first is the answer in a line; the others say how sure it is.
    sections : sequence of Section
    warnings : sequence of str
        Shown before everything else.
    settings : mapping of str to str, optional
        Shown last, before the versions of the packages.

    Returns
    -------
    str
        A whole page that refers to nothing outside itself.
    """
    drawn = {
        str(i): (own.picture, own.alternative) for i, own in enumerate(sections) if own.picture is not None
    }
    return html.page(
        "study.html", question, drawn,
        answer=answer, sections=sections, warnings=warnings, cell=cell,
        settings={**(settings or {}), **versions.installed()},
    )


def write(path: str | Path, question: str, answer: Sequence[str], sections: Sequence[Section], **more: Any) -> None:
    """Write the report to one self-contained HTML file, atomically; arguments as of `render`.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    html.save(render(question, answer, sections, **more), path)


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(value)
    return words.number(float(value)) if isinstance(value, (float, np.floating)) else str(value)
