"""The picture of a graph: where tasks stand, and what is said of edges."""

from __future__ import annotations

import pandas as pd
from matplotlib.patches import FancyArrowPatch

from bmtl.report import graph
from bmtl.report.style import make

NAMES = ["a", "b", "c", "d"]


def table(**edges: float) -> pd.DataFrame:
    found = pd.DataFrame(0.0, index=NAMES, columns=NAMES)
    for edge, p in edges.items():
        found.loc[edge[0], edge[1]] = p
    return found


def test_tasks_that_are_joined_stand_side_by_side() -> None:
    weight = table(ac=1.0, cb=1.0, bd=1.0).to_numpy()
    place = graph.ring(weight + weight.T)
    assert sorted(place) == [0, 1, 2, 3]
    for i, j in ((0, 2), (2, 1), (1, 3)):
        assert (place[i] - place[j]) % 4 in (1, 3)


def test_an_arrow_for_every_edge_that_is_not_improbable() -> None:
    figure = make(graph.draw, (4.8, 4.4), table(ab=0.6, ba=0.4, cd=0.999, da=0.05))
    arrows = [own for own in figure.axes[0].patches if isinstance(own, FancyArrowPatch)]
    assert len(arrows) == 3
    texts = {own.get_text() for own in figure.axes[0].texts}
    assert texts == {*NAMES, ".60", ".40"}
    figure.draw_without_rendering()


def test_what_is_said() -> None:
    assert graph.said(table(ab=0.6, ba=0.4)).endswith("probabilities of edges: a → b 0.60; b → a 0.40.")
    assert "no edge" in graph.said(table(ab=0.02))
    assert graph.said(table(ab=0.6, bc=0.5, cd=0.4), most=1).endswith("a → b 0.60; and 2 less probable.")
