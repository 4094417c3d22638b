"""Reasons in plain words, with the numbers they rest on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmtl.advice.screen import PairEvidence, Screen

NO_SIGNAL = 0.5
"""Probability of depending on the inputs below which a task is said not to."""

NOTABLE_CORRELATION = 0.2
"""Residual correlation that is worth a sentence."""


def of_pair(pair: PairEvidence, verdict: str, names: Sequence[str], inputs: Sequence[str], screen: Screen) -> str:
    """Why two tasks got their verdict."""
    a, b = names[pair.a], names[pair.b]
    if verdict == "merge":
        parts = _merge(pair, a, b, screen)
    elif verdict == "weight":
        parts = _weight(pair, a, b, inputs, screen)
    elif verdict == "decouple":
        parts = _decouple(pair, a, b, screen)
    else:
        parts = _undecided(pair, a, b, screen)
    r = pair.residual_correlation
    if np.isfinite(r) and abs(r) >= NOTABLE_CORRELATION:
        parts.append(
            f"What the inputs do not explain is correlated too ({r:+.2f} on shared rows): a common cause or one acting "
            "on the other, which a shared trunk does not use."
        )
    return " ".join(parts)


def _merge(pair: PairEvidence, a: str, b: str, screen: Screen) -> list[str]:
    form = {
        "same": f"{b} is the same function of the inputs as {a}",
        "sign-flipped": f"{b} is {a} with its sign flipped",
        "rescaled": f"{b} is {a} in other units (× {pair.scale:.3g})",
        "sign-flipped and rescaled": f"{b} is {a} with its sign flipped and in other units (× {pair.scale:.3g})",
    }.get(pair.kind, f"{b} follows {a} ({pair.kind})")
    return [f"{form}, up to noise (p = {pair.p_merge:.2f}).", *_gains(pair, a, b, screen)]


def _weight(pair: PairEvidence, a: str, b: str, inputs: Sequence[str], screen: Screen) -> list[str]:
    if pair.p_correlated >= pair.p_representation:
        form = (
            "Their functions of the inputs are related "
            f"(correlation {pair.correlation:+.2f} ± {pair.correlation_sd:.2f}) but not one (p = {pair.p_weight:.2f})."
        )
    else:
        used = ", ".join(inputs[i] for i in pair.shared_inputs)
        form = (
            f"Different functions of the same few inputs ({used}): the representation is shared "
            f"(p = {pair.p_weight:.2f})."
        )
    return [form, *_gains(pair, a, b, screen)]


def _decouple(pair: PairEvidence, a: str, b: str, screen: Screen) -> list[str]:
    empty = [name for name, t in ((a, pair.a), (b, pair.b)) if screen.signal[t] < NO_SIGNAL]
    if empty:
        chance = ", ".join(f"{screen.signal[t]:.2f}" for t in (pair.a, pair.b) if screen.signal[t] < NO_SIGNAL)
        verb = "does" if len(empty) == 1 else "do"
        return [
            f"{' and '.join(empty)} {verb} not depend on the inputs (probability of any dependence {chance}): "
            f"there is nothing to share (p = {pair.p_decouple:.2f})."
        ]
    return [
        "Their functions of the inputs are unrelated "
        f"(correlation {pair.correlation:+.2f} ± {pair.correlation_sd:.2f}, p = {pair.p_decouple:.2f})."
    ]


def _undecided(pair: PairEvidence, a: str, b: str, screen: Screen) -> list[str]:
    weak = [
        f"If at all, {name} depends on the inputs only weakly (probability of any dependence {screen.signal[t]:.2f})."
        for name, t in ((a, pair.a), (b, pair.b))
        if screen.signal[t] < 0.9
    ]
    text = (
        f"The data cannot tell: merge {pair.p_merge:.2f}, weight {pair.p_weight:.2f}, decouple {pair.p_decouple:.2f}, "
        f"from {pair.n_a} and {pair.n_b} cells."
    )
    return [text, *weak]


def _gains(pair: PairEvidence, a: str, b: str, screen: Screen) -> list[str]:
    parts = [
        f"Knowing {b} is worth {pair.gain_a:+.1f} ± {pair.se_a:.1f} nats to {a}, the reverse "
        f"{pair.gain_b:+.1f} ± {pair.se_b:.1f}."
    ]
    gains = [pair.gain_a > 2.0 * pair.se_a, pair.gain_b > 2.0 * pair.se_b]
    if sum(gains) == 1:
        helped, other = ((a, pair.a), (b, pair.b)) if gains[0] else ((b, pair.b), (a, pair.a))
        own, theirs = (f"{screen.r2[t]:.0%}" for t in (helped[1], other[1]))
        cells = {pair.a: pair.n_a, pair.b: pair.n_b}
        parts.append(
            f"Measurable help goes one way, to {helped[0]}: its inputs explain {own} of it from {cells[helped[1]]:,} "
            f"cells, {theirs} of {other[0]} from {cells[other[1]]:,}."
        )
    return parts


def of_harm(harmed: Sequence[str], drifting: Sequence[str], verdict: str) -> str:
    """Why refits overrule a pair's verdict."""
    if drifting:
        return (
            f"But sharing a trunk made {_listed(harmed)} predict later rows worse, though not rows left out at random: "
            "the relation drifts, so not settled."
        )
    so = "so they are better apart" if verdict == "decouple" else "so not settled"
    return (
        f"But sharing a trunk made {_listed(harmed)} predict left-out cells worse, {so}. Where functions are "
        "related, that is often competition for the capacity of the trunk, which a wider one cures."
    )


def of_width(
    tasks: Sequence[str], still: Sequence[str], times: int, trunk: str, before: tuple[float, float],
    after: tuple[float, float],
) -> str:
    """What a wider trunk does to the harm of sharing."""
    start = f"A wider trunk does not let {_listed(still)} share" if still else "Widen the trunk before you decouple"
    narrow, wide = ("{:+.3f} ± {:.3f}".format(*own) for own in (before, after))
    return (
        f"{start}: against a trunk each of the same width, sharing changes the log density of left-out observations of "
        f"{_listed(tasks)} by {narrow} nats on the trunk as given and by {wide} on one {times} times as wide ({trunk})."
    )


def of_task(partners: Sequence[str], twins: Sequence[str], gain: float, se: float, n: int) -> str:
    """Why a task stands where it does in the recommended arrangement."""
    if not partners and not twins:
        return "Alone on its trunk: nothing in the data says that another task helps it."
    place = []
    if twins:
        place.append(f"one head with {_listed(twins)}")
    if partners:
        place.append(f"a trunk with {_listed(partners)}")
    per_cell = f"{gain:+.1f} ± {se:.1f} nats over {n:,} cells against standing alone"
    if gain > 2 * se:
        effect = f"sharing helps it ({per_cell})"
    elif gain < -2 * se:
        effect = f"sharing costs it ({per_cell})"
    else:
        effect = f"sharing neither helps nor harms it measurably ({per_cell})"
    return f"Shares {' and '.join(place)}; {effect}."


def of_set(verdict: str, kinds: dict[str, float], arrangement: str, gain: float, se: float, evidence: str) -> str:
    """The answer for all tasks at once."""
    forms = {
        "merge": "All tasks are one function of the inputs: one trunk, one head.",
        "weight": "The tasks inform each other without being one: one trunk, a head each, weighted by their noises.",
        "decouple": "Sharing does not help these tasks: a trunk each.",
        "mixed": f"Some tasks belong together and some do not: {arrangement}.",
        "undecided": "The data do not settle one arrangement of all tasks"
        f" (merge {kinds['merge']:.2f}, weight {kinds['weight']:.2f}, decouple {kinds['decouple']:.2f}, "
        f"mixed {kinds['mixed']:.2f}); the best guess is {arrangement}.",
    }
    if not np.isfinite(gain) or max(abs(gain), se) < 0.05:  # with an identity trunk, heads alone are decoupled
        return forms[verdict]
    better = "better" if gain >= 0 else "worse"
    return (
        f"{forms[verdict]} Against a trunk each, it predicts unseen cells {better} by {abs(gain):.1f} ± {se:.1f} nats "
        f"in all ({evidence})."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
