"""A step of SVI on the engine pyro beside a plain torch step of uncertainty weighting: same network, rows, optimiser.

The network is 16 → width → width → 8 with tanh, all rows are in the batch, Adam moves both. The plain step is what a
user would write (Kendall, Gal & Cipolla 2018): squared errors times exp(−2 log σ), plus log σ. On CUDA the plain step
is also captured as a graph, and the products of matrices alone are timed: no step can be faster than they are.

Usage: ``python -m benchmarks.speed.svi [--rows 1024 8192] [--widths 256] [--repeats 9] [--device cpu] [--out FILE]``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

import bmtl
from benchmarks import record
from benchmarks.speed.timing import compared, interleaved, surroundings
from bmtl.data import Design, arrays
from bmtl.fitting import SVI
from bmtl.fitting.pyro_svi import PyroSVI
from bmtl.fitting.repeated import repeated
from bmtl.models import SharedTrunk
from bmtl.trunks import MLP

INPUTS, OUTPUTS, RATE = 16, 8, 1e-3
SECONDS = 0.3
"""Of steps behind one measurement, about."""


def problem(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outcomes."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, INPUTS))
    return X, np.tanh(X @ rng.normal(size=(INPUTS, OUTPUTS))) + rng.normal(size=(rows, OUTPUTS))


def ours(X: np.ndarray, Y: np.ndarray, width: int, device: torch.device) -> Callable[[], None]:
    """The step that a fit repeats, all parameters under a mean-field guide."""
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * OUTPUTS)
    design = Design.of(tasks)
    settings = SVI(batch_size=len(X), trunk="guide", learning_rate=RATE)
    svi = PyroSVI(SharedTrunk(MLP((width, width))), design, settings, arrays(tasks, design), device=str(device))
    advance = repeated(svi.step, svi.generators, device)

    def step() -> None:
        svi.at.zero_()
        advance()

    return step


def plain(X: np.ndarray, Y: np.ndarray, width: int, device: torch.device, graph: bool = False) -> Callable[[], None]:
    """The same network with a learned log σ for each output."""
    x, y = (torch.as_tensor(own, dtype=torch.float32, device=device) for own in (X, Y))
    net = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh(),
        torch.nn.Linear(width, OUTPUTS),
    ).to(device)
    log_sigma = torch.zeros(OUTPUTS, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([*net.parameters(), log_sigma], lr=RATE, capturable=graph)

    def step() -> None:
        optimiser.zero_grad()
        loss = (0.5 * (net(x) - y) ** 2 * torch.exp(-2.0 * log_sigma) + log_sigma).mean(0).sum()
        loss.backward()
        optimiser.step()

    return repeated(step, [], device) if graph else step


def products(rows: int, width: int, device: torch.device) -> Callable[[], None]:
    """The matrix products of a step alone, forwards and twice backwards."""
    sizes = [(INPUTS, width), (width, width), (width, OUTPUTS)]
    held = [(torch.randn(rows, a, device=device), torch.randn(a, b, device=device)) for a, b in sizes]
    back = [torch.randn(rows, b, device=device) for _, b in sizes]

    def step() -> None:
        for layer, ((x, w), own) in enumerate(zip(held, back, strict=True)):
            _ = x @ w, x.T @ own
            if layer:
                _ = own @ w.T

    return step


def measure(rows: int, width: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds a step, and ratios."""
    X, Y = problem(rows)
    calls = {"ours": ours(X, Y, width, device), "plain": plain(X, Y, width, device)}
    finish: Callable[[], Any] = lambda: None  # noqa: E731
    if device.type == "cuda":
        calls |= {"graphed": plain(X, Y, width, device, graph=True), "products": products(rows, width, device)}
        finish = torch.cuda.synchronize
    with pyro.validation_enabled(False):
        trial = interleaved(calls, 1, finish, times=8)
        times = max(3, round(SECONDS / trial["plain"]["wall"][0]))
        found = interleaved(calls, repeats, finish, times)
    others = [name for name in calls if name != "ours"]
    return {"rows": rows, "width": width, "steps": times, **{name: compared(found, "ours", name) for name in others}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--widths", type=int, nargs="+", default=[256])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    show(options.rows, options.widths, torch.device(options.device), options.repeats, options.out)


def show(rows: list[int], widths: list[int], device: torch.device, repeats: int, out: Path | None) -> None:
    """Measure, print and write."""
    found = []
    print(f"{'rows':>8}{'width':>7}{'beside':>10}{'ours, ms':>10}{'other, ms':>11}{'ratio':>7}{'ratio, cpu':>12}")
    for n in rows:
        for width in widths:
            own = measure(n, width, device, repeats)
            found.append(own)
            for name in own:
                if isinstance(own[name], dict):
                    r = own[name]
                    print(f"{n:8,d}{width:7d}{name:>10}{1e3 * r['ours_wall']:10.2f}{1e3 * r[f'{name}_wall']:11.2f}"
                          f"{r['ratio_wall']:7.2f}{r['ratio_cpu']:12.2f}", flush=True)
            settings = {"repeats": repeats, "device": str(device), **surroundings()}
            record.write(out, settings=settings, steps=found)


if __name__ == "__main__":
    main()
