"""Numbers and arrangements in words, and what each picture shows for those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bmtl.advice.plots import MAX_PAIRS
from bmtl.arrangement import Arrangement
from bmtl.report.style import minus, rows

if TYPE_CHECKING:
    from bmtl.advice import Advice
    from bmtl.results import Fit

VERDICTS = {
    "merge": "Merge: one trunk and one head for all",
    "weight": "Weight: one trunk, a head and a weight for each task",
    "decouple": "Decouple: a model of its own for each task",
    "mixed": "Mixed: some tasks belong together, others do not",
    "undecided": "Undecided",
}
"""The answer for the whole set, in one line."""

NONE = "–"


def number(value: float, digits: int = 3) -> str:
    """That many significant digits; powers of ten only where the number would be long without."""
    value = float(value)
    if not math.isfinite(value):
        return NONE
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    if value and not 1e-4 <= abs(value) < 1e6:
        return minus(mantissa) + " × 10" + str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    decimals = max(digits - 1 - int(power), 0) if value else 0
    text = minus(f"{value:.{decimals}f}")
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) >= 1e3 else text


def with_se(value: float, se: float, signed: bool = False) -> str:
    """Value ± standard error, to the second digit of the standard error."""
    value, se = float(value), float(se)
    if not math.isfinite(value):
        return NONE
    if not (math.isfinite(se) and se > 0):
        return number(value)
    decimals = max(1 - math.floor(math.log10(se)), 0)
    text = minus(f"{value:{'+' if signed else ''}.{decimals}f}")
    return f"{text} ± {se:.{decimals}f}"


def interval(middle: float, low: float, high: float) -> str:
    """Mean and interval."""
    if not math.isfinite(float(middle)):
        return NONE
    return f"{number(middle)} ({number(low)} to {number(high)})"


def correlation(value: float) -> str:
    """To two decimals."""
    return minus(f"{float(value):.2f}") if math.isfinite(float(value)) else NONE


def percent(p: float) -> str:
    """A probability; never quite 0 or 1."""
    p = float(p)
    if not math.isfinite(p):
        return NONE
    return "< 1 %" if p <= 0.005 else "> 99 %" if p >= 0.995 else f"{100 * p:.0f} %"


def duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{number(seconds)} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def named(names: Iterable[str]) -> str:
    """Names of tasks, quoted, so that they stand out from the sentence."""
    return listed(f"“{name}”" for name in names)


def in_words(arrangement: Arrangement) -> list[str]:
    """An arrangement as one sentence a trunk; the tasks that stand alone share the last."""
    lines = []
    for trunk in arrangement.trunks:
        tasks_here = sum(map(len, trunk))
        if tasks_here == 1:
            continue
        parts = []
        for head in trunk:
            if len(head) > 1:
                down = [name for name in head if name in arrangement.flipped]
                sign = f" ({named(down)} with the sign flipped)" if down else ""
                parts.append(f"{named(head)} as one function{sign}")
        own = [head[0] for head in trunk if len(head) == 1]
        if own:
            parts.append(f"{named(own)} with {'a head each' if len(own) > 1 else 'a head of its own'}")
        lines.append("One trunk: " + "; ".join(parts) + ".")
    alone = [trunk[0][0] for trunk in arrangement.trunks if sum(map(len, trunk)) == 1]
    if alone:
        lines.append(f"{'On its own' if len(alone) == 1 else 'Each on its own'}: {named(alone)}.")
    return lines


def alternatives(advice: Advice) -> dict[str, str]:
    """Picture to what it shows, with its main numbers."""
    return {
        "arrangement": of_arrangement(advice.arrangement),
        "elpd": _elpd(advice),
        "correlation": _correlation(advice),
        "noise": of_weights(advice.tasks),
        "probabilities": _probabilities(advice),
    }


def _elpd(advice: Advice) -> str:
    table = advice.differences[advice.differences["arrangement"] == "recommended"]
    each = [
        f"{row.task} {with_se(row.difference / row.n, row.se / row.n, signed=True)}" for row in rows(table)
    ]
    return (
        "Points with error bars: difference of each task’s ELPD to decoupled, weighted, merged and as recommended. "
        f"As recommended, nats per observation: {'; '.join(each)}."
    )


def _correlation(advice: Advice) -> str:
    counts = advice.pairs["verdict"].value_counts()
    verdicts = listed(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{of_correlations(advice.pairs)} Verdicts of the pairs: {verdicts}."


def of_correlations(pairs: pd.DataFrame) -> str:
    """What the heat map of task correlations shows."""
    table = pairs[np.isfinite(pairs["correlation"])]
    if table.empty:
        return "Heat map of task correlations, none of which is known."
    strongest = table.loc[table["correlation"].abs().sort_values(ascending=False).index][:3]
    each = [f"{row.task_a} and {row.task_b} {correlation(row.correlation)}" for row in rows(strongest)]
    return f"Heat map of task correlations. Strongest: {'; '.join(each)}."


def of_arrangement(arrangement: Arrangement) -> str:
    """What the picture of an arrangement shows."""
    return "Diagram from inputs to trunks, heads and tasks. " + " ".join(in_words(arrangement))


def of_weights(table: pd.DataFrame) -> str:
    """What the picture of noises and weights shows."""
    each = []
    for row in rows(table):
        noise = f"noise {number(row.noise)}, " if np.isfinite(row.noise) else ""
        each.append(f"{row.task}: {noise}weight {number(row.weight)}")
    return f"Mean and interval of each task’s noise and weight on log scales. {'; '.join(each)}."


def _probabilities(advice: Advice) -> str:
    closest = advice.pairs.sort_values("p_decouple", kind="stable").iloc[0]
    return (
        "Stacked bars of the probabilities of merge, weight and decouple for "
        f"{min(len(advice.pairs), MAX_PAIRS)} of {len(advice.pairs)} pairs. Least likely to be decoupled: "
        f"{closest.task_a} and {closest.task_b}, {percent(closest.p_merge)} merge, {percent(closest.p_weight)} weight, "
        f"{percent(closest.p_decouple)} decouple."
    )


def trace_alternative(fit: Fit) -> str:
    """What the picture of the optimisation shows."""
    runs = [run[np.isfinite(run)] for run in np.atleast_2d(np.asarray(fit.draws.trace, dtype=float))]
    last = [run[-1] for run in runs if len(run)]
    return f"Curves of −ELBO by chunk of steps, ending at {listed(number(value, 5) for value in sorted(last))} nats."
