"""What the records of many problems say of bmtl and its peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Record = dict[str, Any]
SIZE, CELL = ("tasks", "rows"), ("tasks", "parents", "rows", "noise", "instruments")
METRICS = {"log score": 1, "AUROC": 1, "SHD": -1}
"""Whether more is better."""


def calibrated(records: Sequence[Record], name: str, by: Sequence[str] = SIZE) -> None:
    """Fill in log scores and AUROC of a method that only has counts, with shares over all problems of equal ``by``."""
    own = [record for record in records if "counts" in record["methods"].get(name, {})]
    for key in {tuple(record[field] for field in by) for record in own}:
        said = [record["methods"][name] for record in own if tuple(record[field] for field in by) == key]
        total = np.sum([one["counts"] for one in said], axis=0, dtype=float)
        share = np.divide(total, total.sum(axis=1, keepdims=True), out=np.ones_like(total), where=total > 0)
        for one in said:
            table = np.array(one["counts"], dtype=float)
            one["log score"] = float(np.sum(table * np.log(share)) / table.sum())
            one["AUROC"] = auroc(table, share[:, 1])


def auroc(table: Array, score: Array) -> float:
    """Of counts by level, without and with an edge (k, 2), and the levels' scores; NaN without either."""
    without, edges = table.T
    above = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    pairs = edges.sum() * without.sum()
    return float(edges @ above @ without / pairs) if pairs else np.nan


def gap(records: Sequence[Record], name: str, metric: str) -> tuple[float, float, int]:
    """Mean of how much better bmtl is than a peer on the same problems, its standard error, and how many problems.

    NaN of fewer than two.
    """
    both = [own["methods"] for own in records if {name, "bmtl"} <= set(own["methods"])]
    gaps = METRICS[metric] * np.array([own["bmtl"][metric] - own[name][metric] for own in both])
    gaps = gaps[~np.isnan(gaps)]
    if len(gaps) < 2:
        return np.nan, np.nan, len(gaps)
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps))), len(gaps)


def mean(records: Sequence[Record], name: str, metric: str) -> float:
    """Over the problems that a method has seen; NaN if none."""
    values = [own["methods"][name][metric] for own in records if name in own["methods"]]
    return float(np.nanmean(values)) if values else np.nan


def title(cell: tuple[Any, ...]) -> str:
    """A cell in words."""
    tasks, parents, rows, noise, instruments = cell
    return f"{tasks:3d}  ER-{parents}  {rows:5d}  {noise:10}{'inputs' if instruments else '-':7}"


def show(records: Sequence[Record]) -> None:
    """Print means by cell and in total, and where a peer is ahead."""
    names = list(dict.fromkeys(name for own in records for name in own["methods"]))
    peers = [name for name in names if name != "bmtl"]
    for name in peers:
        calibrated(records, name)
    cells = sorted({tuple(own[field] for field in CELL) for own in records})
    for metric in METRICS:
        heads = "".join(f"{name:>10}" for name in names)
        print(f"\n{metric}\n{'T    graph   rows  noise     given':37}{'n':>4}{heads}")
        for cell in [*cells, None]:
            own = [one for one in records if cell in (None, tuple(one[field] for field in CELL))]
            means = "".join(f"{mean(own, name, metric):10.4f}" for name in names)
            print(f"{'all' if cell is None else title(cell):37}{len(own):4d}{means}")
    if "bmtl" not in names:
        return
    print("\nbmtl's mean lead over each peer on the same problems, in paired standard errors")
    for metric in METRICS:
        found = {name: gap(records, name, metric) for name in peers}
        print(f"{metric:12}" + "  ".join(f"{name} {lead:.4f} ± {se:.4f}" for name, (lead, se, _) in found.items()))
    print("\ncells in which a peer's log score is ahead by more than two standard errors")
    behind = [
        (cell, name, *found)
        for cell in cells for name in peers
        if (found := gap([one for one in records if cell == tuple(one[field] for field in CELL)], name, "log score"))
        and found[0] < -2 * found[1]
    ]
    for cell, name, lead, se, n in behind:
        print(f"  {title(cell)} {name}: {-lead:.4f} ± {se:.4f} ({n} problems)")
    print("  none" if not behind else "")
    seconds = {name: mean(records, name, "seconds") for name in names}
    print("\nprocessor seconds a problem: " + ", ".join(f"{name} {own:.2f}" for name, own in seconds.items()))
