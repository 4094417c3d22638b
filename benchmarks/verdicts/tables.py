"""What the records of many problems say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.verdicts.problems import CLEAR

Record = dict[str, Any]
VERDICTS = ("merge", "weight", "decouple")
RIVALS = ("decouple", "share", "merge", "pairwise HOA", "affinity", "gradient cosine")
SURE = 0.9
"""Probability from which a wrong verdict is confidently wrong."""

BINS = 10


def of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    """Those of a kind, or all."""
    return [own for own in records if kind in ("all", own["kind"])]


def truths(pair: Record) -> list[str]:
    """The verdicts on a pair that are right."""
    return list(pair["truth"].split(" or "))


def verdicts(records: Sequence[Record]) -> dict[str, float]:
    """Shares of pairs, each problem with the same weight, and the mean probability of the truth."""
    weight, right, undecided, confident, truth = [], [], [], [], []
    for record in records:
        for pair in record["pairs"]:
            weight.append(1.0 / len(record["pairs"]))
            p = dict(zip(VERDICTS, pair["p"], strict=True))
            true = truths(pair)
            right.append(pair["verdict"] in true)
            undecided.append(pair["verdict"] == "undecided")
            wrong = pair["verdict"] not in (*true, "undecided")
            confident.append(wrong and p[pair["verdict"]] >= SURE)
            truth.append(sum(p[own] for own in true))
    columns = {"right": right, "undecided": undecided, "confidently wrong": confident, "p(truth)": truth}
    return {name: float(np.average(values, weights=weight)) for name, values in columns.items()}


def reliability(records: Sequence[Record]) -> tuple[list[dict[str, float]], float]:
    """Bins of the most probable verdict's probability, and the expected calibration error over them."""
    rows = [
        (max(pair["p"]), VERDICTS[int(np.argmax(pair["p"]))] in truths(pair), 1.0 / len(record["pairs"]))
        for record in records for pair in record["pairs"]
    ]
    p, right, weight = (np.array(own, dtype=float) for own in zip(*rows, strict=True))
    number = np.minimum((p * BINS).astype(int), BINS - 1)
    curve, error = [], 0.0
    for own in np.unique(number):
        there = number == own
        mean, share = (float(np.average(values[there], weights=weight[there])) for values in (p, right))
        part = float(weight[there].sum() / weight.sum())
        error += part * abs(mean - share)
        curve.append({"probability": mean, "right": share, "share": part})
    return curve, error


def regrets(records: Sequence[Record], name: str) -> np.ndarray:
    """Nats an observation by which an approach is behind the best arrangement, one a problem."""
    return np.array([own["best"] - own["scores"][name] for own in records])


def behind(records: Sequence[Record], rival: str) -> tuple[float, float]:
    """Mean regret of bmtl less that of a rival, and its paired standard error."""
    gap = regrets(records, "bmtl") - regrets(records, rival)
    return float(gap.mean()), float(gap.std() / np.sqrt(len(gap)))


def harms(records: Sequence[Record]) -> list[tuple[str, int]]:
    """Problems on which the recommended arrangement is worse than decoupled by more than twice its stated error."""
    found = []
    for own in records:
        gap = own["scores"]["bmtl"] - own["scores"]["decouple"]
        if gap < -max(2.0 * own["se"] / own["cells"], 1e-9):
            found.append((own["kind"], own["seed"]))
    return found


def show(records: Sequence[Record]) -> None:
    """Print all of it."""
    kinds = [*dict.fromkeys(own["kind"] for own in records), "all"]
    print(f"\n{'kind':18}{'n':>5}{'right':>8}{'undecided':>11}{'p≥.9 wrong':>12}{'p(truth)':>10}{'ECE':>7}{'s':>7}")
    for kind in kinds:
        own = of_kind(records, kind)
        found = verdicts(own)
        print(
            f"{kind + ('*' if kind in CLEAR else ''):18}{len(own):5d}{found['right']:8.1%}{found['undecided']:11.1%}"
            f"{found['confidently wrong']:12.1%}{found['p(truth)']:10.3f}{reliability(own)[1]:7.3f}"
            f"{np.median([one['seconds'] for one in own]):7.1f}"
        )
    clear = [own for own in records if own["kind"] in CLEAR]
    if clear:
        print(f"clear kinds (*): {verdicts(clear)['right']:.1%} right")
    print("\nreliability: probability, share right, share of pairs")
    for row in reliability(records)[0]:
        print(f"{row['probability']:8.2f}{row['right']:8.2f}{row['share']:8.1%}")
    print("\nregret, nats an observation: bmtl's median and 95th percentile, and means")
    print(f"{'kind':18}{'median':>9}{'95%':>9}{'bmtl':>9}" + "".join(f"{rival:>17}" for rival in RIVALS))
    for kind in kinds:
        own = of_kind(records, kind)
        ours = regrets(own, "bmtl")
        means = "".join(f"{regrets(own, rival).mean():17.4f}" for rival in RIVALS)
        print(f"{kind:18}{np.median(ours):9.4f}{np.quantile(ours, 0.95):9.4f}{ours.mean():9.4f}{means}")
    print("\nkinds in which a rival's mean regret is smaller by more than two paired standard errors")
    for kind in kinds:
        for rival in RIVALS:
            gap, se = behind(of_kind(records, kind), rival)
            if gap > 2 * se and gap > 0:
                print(f"  {kind}: {rival}, by {gap:.4f} ± {se:.4f}")
    print(f"\nworse than decoupled beyond twice the stated error: {harms(records) or 'none'}")
