"""Times of several things side by side: in turn, so that what else the machine does falls on all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def interleaved(
    calls: Mapping[str, Callable[[], Any]], repeats: int, finish: Callable[[], Any] = lambda: None, times: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each call, one after another in every repeat; what they do first is not timed.

    Parameters
    ----------
    finish : callable
        Waits until what was asked for is done, as a GPU needs it.
    times : int
        Calls a measurement.

    Returns
    -------
    dict
        Name to ``wall`` and ``cpu`` (of this process), seconds of one call in each repeat.
    """
    found: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            finish()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(times):
                call()
            finish()
            if repeat:
                found[name]["wall"].append((time.perf_counter() - wall) / times)
                found[name]["cpu"].append((time.process_time() - cpu) / times)
    return found


def compared(found: Mapping[str, Mapping[str, list[float]]], name: str, other: str) -> dict[str, float]:
    """Medians of the first in seconds, and of its ratios to the other, by wall and by processor time."""
    out = {}
    for clock in ("wall", "cpu"):
        own, reference = np.array(found[name][clock]), np.array(found[other][clock])
        out |= {f"{name}_{clock}": float(np.median(own)), f"{other}_{clock}": float(np.median(reference)),
                f"ratio_{clock}": float(np.median(own / reference))}
    return out


def surroundings() -> dict[str, Any]:
    """What a reader of times must know: cores, threads, and how busy the machine is."""
    import torch

    return {"cores": os.cpu_count(), "torch_threads": torch.get_num_threads(), "load": list(os.getloadavg())}
