"""Pictures of an advice: what they show, for few tasks and many."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bmtl.advice import plots
from bmtl.arrangement import Arrangement

PICTURES = ["arrangement", "elpd", "correlation", "noise", "probabilities", "overview"]


def advice(n: int, flipped: bool = True) -> SimpleNamespace:
    """Tasks in pairs: the first two merged, the next two weighted, the others alone; one outlier when merged."""
    rng = np.random.default_rng(n)
    names = [f"task {t:02d} with a rather long name, 100 $ or more $" for t in range(n)]
    trunks = [((names[0], names[1]),)]
    if n > 3:
        trunks.append(((names[2],), (names[3],)))
    trunks += [((name,),) for name in names[4 if n > 3 else 2 :]]
    found = Arrangement(tuple(trunks), frozenset(names[1:2] if flipped else []))
    pairs = [
        (a, b, found.relation(a, b), *rng.dirichlet(np.ones(3)), rng.uniform(-1, 1)) for a, b in combinations(names, 2)
    ]
    differences = [
        (name, kind, -1e4 if kind == "merged" and name == names[0] else rng.normal(0, 5), 2.0, 100)
        for name in names for kind in ("weighted", "merged", "recommended")
    ]
    noise = np.where(np.arange(n) % 2, np.nan, rng.uniform(0.5, 2, n))
    weight = rng.uniform(0.1, 10, n)
    return SimpleNamespace(
        arrangement=found,
        verdict="mixed",
        pairs=pd.DataFrame(
            pairs, columns=["task_a", "task_b", "verdict", "p_merge", "p_weight", "p_decouple", "correlation"]
        ),
        differences=pd.DataFrame(differences, columns=["task", "arrangement", "difference", "se", "n"]),
        tasks=pd.DataFrame({
            "task": names, "family": np.where(np.arange(n) % 2, "bernoulli", "student_t"),
            "noise": noise, "noise_low": noise * 0.9, "noise_high": noise * 1.1,
            "weight": weight, "weight_low": weight * 0.9, "weight_high": weight * 1.1,
        }),
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("n", [2, 5, 12])
def test_draws_inside_its_figure(name: str, n: int) -> None:
    figure = getattr(plots, name)(advice(n))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())  # type: ignore[attr-defined]
    width, height = figure.get_size_inches()
    assert box.x0 > -0.05 and box.y0 > -0.05 and box.x1 < width + 0.05 and box.y1 < height + 0.05


@pytest.mark.parametrize("n", [2, 5, 12])
def test_every_task_is_there(n: int) -> None:
    subject = advice(n)
    labels = {plots.label(name) for name in subject.arrangement.names}
    assert len(labels) == n
    assert [tick.get_text() for tick in plots.elpd(subject).axes[0].get_yticklabels()] == [
        plots.label(name) for name in subject.arrangement.names
    ]
    assert len(plots.noise(subject).axes[0].get_yticklabels()) == n
    shown = texts(plots.arrangement(subject))
    assert {plots.label(name, 23) for name in subject.arrangement.names} <= set(shown)
    assert sum(text.startswith("trunk") for text in shown) == len(subject.arrangement.trunks)
    assert len(texts(plots.correlation(subject))) == n * (n - 1)


def test_a_flipped_sign_is_named() -> None:
    assert [text for text in texts(plots.arrangement(advice(5))) if text in "+−"] == ["+", "−"]
    assert "−" not in texts(plots.arrangement(advice(5, flipped=False)))


def test_a_huge_difference_is_an_arrow_with_its_number() -> None:
    ax = plots.elpd(advice(5)).axes[0]
    assert ax.get_xlim()[1] < 2
    assert "−100" in [text.get_text() for text in ax.texts]


def test_differences_may_be_missing() -> None:
    subject = advice(3)
    subject.differences["difference"] = np.nan
    plots.elpd(subject)


def test_noise_only_where_there_is_any() -> None:
    subject = advice(5)
    assert texts(plots.noise(subject)).count("none") == 2
    subject.tasks[["noise", "noise_low", "noise_high"]] = np.nan
    assert len(plots.noise(subject).axes) == 1


@pytest.mark.parametrize("spread", [1.0, 2.0, 10.0, 300.0, 1e8])
def test_log_scales_have_a_few_plain_ticks(spread: float) -> None:
    subject = advice(3)
    columns = ["weight", "weight_low", "weight_high"]
    subject.tasks[columns] = np.outer([1.0, 1.0, spread], [1.0, 0.9, 1.1])
    ax = plots.noise(subject).axes[1]
    low, high = ax.get_xlim()
    assert 2 <= len(ax.get_xticks()) <= 4 and all(low <= tick <= high for tick in ax.get_xticks())


def test_many_pairs_are_cut() -> None:
    figure = plots.probabilities(advice(12))
    assert len(figure.axes[0].get_yticklabels()) == plots.MAX_PAIRS
    assert "the 42 most decoupled left out" in figure.get_suptitle()


def test_undecided_pairs_are_named() -> None:
    subject = advice(3)
    subject.pairs.loc[1, "verdict"] = "undecided"
    assert any(text.startswith("undecided: task 00") for text in texts(plots.arrangement(subject)))
    assert [text for text in texts(plots.correlation(subject)) if text.startswith("U")]
    subject.verdict = "undecided"
    assert "undecided" in plots.arrangement(subject).get_suptitle()


def test_trace() -> None:
    runs = np.array([[900.0, 100, 50, np.nan], [800.0, 90, 60, 55]])
    figure = plots.trace(SimpleNamespace(draws=SimpleNamespace(trace=runs)))  # type: ignore[arg-type]
    assert len(figure.axes[0].lines) == 2
    assert figure.axes[0].lines[0].get_linewidth() > figure.axes[0].lines[1].get_linewidth()


@pytest.mark.parametrize("runs", [None, np.full((2, 5), np.nan)])
def test_no_trace_of_a_sampled_fit_or_of_a_warm_up(runs) -> None:
    with pytest.raises(ValueError, match="only a fit by SVI or MAP"):
        plots.trace(SimpleNamespace(draws=SimpleNamespace(trace=runs)))  # type: ignore[arg-type]


def test_users_style_is_left_alone() -> None:
    before = matplotlib.rcParams.copy()
    plots.overview(advice(3))
    assert matplotlib.rcParams == before
