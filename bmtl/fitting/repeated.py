"""A step that is repeated, on CUDA as one graph: the device then waits for no Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WARM = 3
"""Steps before a graph is captured, so that libraries have allocated what they keep."""

TRAFFIC = {"lift_fresh", "_local_scalar_dense", "nonzero", "masked_select"}
"""Operations that make tensors of host data, or wait for the device to read from it: a graph cannot hold them."""


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= TRAFFIC & {func.overloadpacket.__name__}
        return func(*args, **(kwargs or {}))


def traffic(step: Callable[[], None]) -> set[str]:
    """Do a step, and say which operations between host and device it contains."""
    with _Watch() as watch:
        step()
    return watch.found


def repeated(
    step: Callable[[], None], generators: Sequence[torch.Generator], device: torch.device
) -> Callable[[], None]:
    """A function that does a step at each call.

    On CUDA it does the first steps as they are and then replays what was captured of one, if that has no `traffic`:
    some distributions make tensors of numbers whenever they are used.

    Parameters
    ----------
    step : callable
        It reads and writes tensors that stay where they are.
    generators : sequence of torch.Generator
        That the step draws from.
    device : torch.device
    """
    if device.type != "cuda":
        return step
    graph, done, held = torch.cuda.CUDAGraph(), 0, True

    def warm() -> None:
        nonlocal held
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            held = not traffic(step)
        torch.cuda.current_stream(device).wait_stream(side)

    def capture() -> None:
        for own in generators:
            graph.register_generator_state(own)
        with torch.cuda.graph(graph):
            step()

    def call() -> None:
        nonlocal done
        done += 1
        if done <= WARM:
            warm()
        elif not held:
            step()
        else:
            # To capture a step is not to do it.
            if done == WARM + 1:
                capture()
            graph.replay()

    return call
