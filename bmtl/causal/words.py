"""What follows for conditioning and merging, in the words of McElreath (Statistical Rethinking, 2020, chapter 6)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

SURE = 0.9
"""Probability above which a relation is stated."""

LIKELY = 0.5
"""Probability above which a direction is said not to be identified."""

SIGNED = 0.95
"""Probability above which an input is said to move two tasks in opposite directions, or in the same."""

NOTABLE = 0.1
"""Unexplained correlation that is worth a sentence."""

MOST_INPUTS = 3


def of_pair(
    a: str, b: str, relations: pd.DataFrame, unidentified: float, mechanisms: pd.DataFrame, unexplained: float
) -> str:
    """Whether to condition on one of two tasks, and whether they may be merged.

    Parameters
    ----------
    relations : DataFrame
        Of `Effects.relations`.
    unidentified : float
        Probability of an edge whose direction the data do not identify.
    mechanisms : DataFrame
        Of `Effects.mechanisms`, of this pair.
    unexplained : float
        Correlation that no edge explains.
    """
    found = relations.to_dict("records")
    p = {(str(own["relation"]), str(own["form"])): float(own["p"]) for own in found}
    via = {(str(own["relation"]), str(own["form"])): _listed(own["via"].split(", ")) for own in found if own["via"]}
    parts = [*_between(a, b, p, unidentified), *_around(a, b, via)]
    if abs(unexplained) >= NOTABLE:
        parts.append(
            f"A correlation of {unexplained:+.2f} stays unexplained by any edge drawn: think of a common cause that is "
            "not among these tasks and inputs."
        )
    parts += _apart(a, b, mechanisms)
    return " ".join(parts)


def _between(a: str, b: str, p: dict[tuple[str, str], float], unidentified: float) -> list[str]:
    down, up = p["descendant", f"{b} of {a}"], p["descendant", f"{a} of {b}"]
    joined = p["edge", f"{a} → {b}"] + p["edge", f"{b} → {a}"]
    if max(down, up) >= SURE:
        cause, effect = (a, b) if down >= up else (b, a)
        return [
            f"{effect} lies downstream of {cause} (p {_p(max(down, up))}): condition on {cause} to predict {effect}. "
            f"Do not condition on {effect} to ask what acts on {cause}: it is a descendant, and takes away part of "
            "what is asked for."
        ]
    if joined >= SURE and unidentified >= LIKELY:
        return [
            f"An edge joins {a} and {b} (p {_p(joined)}), but the data do not show which way it points (p "
            f"{_p(unidentified)}): condition on either to predict the other, and read neither as what an intervention "
            "would do."
        ]
    if p["apart", "no path but through colliders"] >= SURE:
        return [
            f"Given the inputs {a} and {b} have nothing to do with each other (p "
            f"{_p(p['apart', 'no path but through colliders'])}): conditioning on one says nothing of the other."
        ]
    return [f"How {a} and {b} stand to each other is not settled (p of {b} downstream {_p(down)}, of {a} {_p(up)})."]


def _around(a: str, b: str, via: dict[tuple[str, str], str]) -> list[str]:
    parts = []
    for cause, effect in ((a, b), (b, a)):
        between = via.get(("pipe", f"{cause} → … → {effect}"))
        if between:
            parts.append(
                f"Pipe {cause} → {between} → {effect}: leave {between} out for the total effect of {cause}; "
                "conditioning there blocks what passes through."
            )
    behind = via.get(("fork", f"{a} ← … → {b}"))
    if behind:
        parts.append(
            f"Fork {a} ← {behind} → {b}: condition on {behind}, or a common cause passes for an effect of one on the "
            "other."
        )
    below = via.get(("collider", f"{a} → … ← {b}"))
    if below:
        parts.append(
            f"Collider {a} → {below} ← {b}: do not condition on {below}, nor on what lies further downstream, which "
            f"would tie {a} and {b} by more than they have in common."
        )
    return parts


def at_odds(mechanisms: pd.DataFrame) -> bool:
    """Whether an input moves two tasks in opposite directions and another in the same: then no sign makes them one.

    Parameters
    ----------
    mechanisms : DataFrame
        Of `Effects.mechanisms`, of the pair.
    """
    return bool((mechanisms["p_opposite"] >= SIGNED).any() and (mechanisms["p_same"] >= SIGNED).any())


def _apart(a: str, b: str, mechanisms: pd.DataFrame) -> list[str]:
    opposite = mechanisms[mechanisms["p_opposite"] >= SIGNED].head(MOST_INPUTS)
    if opposite.empty:
        return []
    sizes = _listed([_sizes(own) for own in opposite.to_dict("records")])
    verb = "pushes" if len(opposite) == 1 else "push"
    if not at_odds(mechanisms):
        return [
            f"{sizes} {verb} {a} and {b} apart (effects on linear predictors) and none moves them together: if merged, "
            "then with a sign flipped."
        ]
    same = mechanisms[mechanisms["p_same"] >= SIGNED]
    together = same.iloc[same[["effect_a", "effect_b"]].abs().min(axis=1).argmax()].to_dict()
    return [
        f"Merging is refused: {sizes} {verb} {a} and {b} apart (effects on linear predictors, p "
        f"{_p(float(opposite['p_opposite'].min()))}), while {_sizes(together)} does not."
    ]


def _sizes(own: Mapping[Hashable, Any]) -> str:
    return f"{own['input']} ({own['effect_a']:+.2g} and {own['effect_b']:+.2g})"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _p(value: float) -> str:
    """A probability by draws: never stated as certain."""
    return "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else f"= {value:.2f}"
