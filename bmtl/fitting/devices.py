"""Engines and devices: which run a fit."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bmtl.engine import ENGINES


def choose(engine: str, device: str, method: str, able: tuple[str, ...] = ENGINES) -> tuple[str, str]:
    """Engine and device, with ``auto`` resolved.

    Parameters
    ----------
    able : tuple of str
        Engines that can run the model.

    Raises
    ------
    ValueError
        If there is no such engine or it cannot run the model, CUDA is asked for where there is none, or NumPyro is
        asked to run on a device.
    """
    if engine not in (*ENGINES, "auto"):
        raise ValueError(f"unknown engine {engine!r}; known: auto, {', '.join(ENGINES)}")
    if engine not in ("auto", *able):
        raise ValueError(f"the model runs on the engine {', '.join(able)} only, not on {engine!r}")
    if engine == "auto" and len(able) == 1:
        (engine,) = able
    if engine == "numpyro" or (engine == "auto" and method == "nuts"):
        if device not in ("auto", "cpu"):
            raise ValueError(f"the numpyro engine runs on the CPU; for device {device!r} use engine='pyro'")
        return "numpyro", "cpu"
    if engine == "auto" and device == "cpu":
        return "numpyro", "cpu"
    import torch

    cuda = torch.cuda.is_available()
    if device == "auto":
        if engine == "auto":
            return ("pyro", "cuda") if cuda else ("numpyro", "cpu")
        return "pyro", "cuda" if cuda else "cpu"
    if torch.device(device).type == "cuda" and not cuda:
        raise ValueError(f"device {device!r} was asked for, but torch sees no CUDA device")
    return "pyro", device


def current(device: Any) -> AbstractContextManager[Any]:
    """A context in which what asks torch for the present CUDA device, as graphs do, gets this one."""
    import torch

    return torch.cuda.device(device) if torch.device(device).type == "cuda" else nullcontext()
