"""A step that is repeated, on CUDA as one graph: the device then waits for no Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

WARM = 3
"""Steps before a graph is captured, so that libraries have allocated what they keep."""


def repeated(
    step: Callable[[], None], generators: Sequence[torch.Generator], device: torch.device
) -> Callable[[], None]:
    """A function that does a step at each call.

    On CUDA it does the first steps as they are and then replays what was captured of one. The step reads and writes
    tensors that stay where they are, makes none of host data and reads none back.

    Parameters
    ----------
    step : callable
    generators : sequence of torch.Generator
        That the step draws from.
    device : torch.device
    """
    if device.type != "cuda":
        return step
    graph, done = torch.cuda.CUDAGraph(), 0

    def call() -> None:
        nonlocal done
        done += 1
        if done > WARM + 1:
            graph.replay()
        elif done <= WARM:
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                step()
            torch.cuda.current_stream(device).wait_stream(side)
        else:
            for own in generators:
                graph.register_generator_state(own)
            with torch.cuda.graph(graph):
                step()
            # To capture a step is not to do it.
            graph.replay()

    return call
