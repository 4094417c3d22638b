"""Programs of one's own: what their tasks' sites hold, and what is read off them, on either engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmtl.data import Block, Data
from bmtl.errors import TaskError
from bmtl.trees import RESERVED, RESERVED_START


class TaskSites:
    """Observes the tasks' sites: every site of a task's name has its cells, and only those that were observed count.

    Handlers of an engine's messages inherit this.

    Parameters
    ----------
    data : Data
    given : bool
        Whether to observe the outcomes of ``data``; else they are drawn.

    Attributes
    ----------
    cells : dict
        Task to its outcomes, mask and exposures, all of shape (rows,).
    found : dict
        Task to the message of its site: ``fn`` is the distribution of its outcomes, batch shape (rows,), and ``value``
        what they are.
    """

    def __init__(self, data: Data, given: bool = True) -> None:
        super().__init__()
        self.data, self.given, self.found = data, given, dict[str, Any]()
        self.cells: dict[str, tuple[Any, Any, Any]] = {}
        self.tasks = {name: t for t, name in enumerate(data.design.names)}
        for block in data.blocks():
            for j, t in enumerate(block.tasks):
                own: Any = (block.y, block.mask, block.exposure)
                if block.y.ndim == 2:
                    own = tuple(value[j] for value in own)
                elif data.task is not None:
                    own = (block.y, block.mask & (data.task == t), block.exposure)
                self.cells[data.design.names[t]] = own

    def at_site(self, msg: dict[str, Any]) -> None:
        """Put a task's cells into the message of its site.

        Raises
        ------
        ValueError
            If the site is latent and has a name that a fit has of its own, or is discrete.
        TaskError
            If it is a task's, and has not one outcome a row.
        """
        name, fn = msg["name"], msg["fn"]
        if name not in self.cells:
            if name in RESERVED or name.startswith(RESERVED_START):
                raise ValueError(f"a fit has a name of its own for the site {name!r}: call it something else")
            if not msg["is_observed"] and fn.support.is_discrete:
                raise ValueError(f"the latent site {name!r} is discrete: sum it out, as fits move on real numbers")
            return
        y, mask, _ = self.cells[name]
        if fn.event_shape or len(fn.batch_shape) > 1:
            shape = f"batch shape {tuple(fn.batch_shape)} and event shape {tuple(fn.event_shape)}"
            raise TaskError(f"the site {name!r} must have one outcome a row, but has {shape}")
        self.found[name] = msg
        msg["fn"], msg["value"], msg["is_observed"] = fn.expand(y.shape), None, False
        if self.given:
            power = self.data.values.get("power")
            scale = self.data.scale if power is None else self.data.scale * power[self.tasks[name]]
            msg["fn"], msg["value"], msg["is_observed"] = msg["fn"].mask(mask), y, True
            msg["scale"] = scale if msg["scale"] is None else scale * msg["scale"]

    def at_param(self, name: str) -> None:
        """Refuse what an optimiser outside of bmtl would fit."""
        raise ValueError(f"the parameter {name!r} has no prior: make it a sample site, or a constant")


class PlayedProgram(ABC):
    """A program at posterior draws, read off its tasks' sites; all ``draws × T × rows``.

    Parameters
    ----------
    model : FromProgram
    draws : mapping
        Site name to array, draws in the leading dimension.
    data : Data

    Attributes
    ----------
    log_prob, mean : array
        Of the outcomes.
    """

    def __init__(self, model: Any, draws: Mapping[str, Any], data: Data) -> None:
        self.model, self.draws, self.data = model, dict(draws), data

    @property
    @abstractmethod
    def log_prob(self) -> Any: ...

    @property
    @abstractmethod
    def mean(self) -> Any: ...

    @abstractmethod
    def new(self, key: Any) -> Any:
        """Outcomes drawn anew."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcomes of a block at posterior draws, ``draws × tasks × rows`` (long: ``draws × rows``)."""

    played: PlayedProgram
    data: Data
    block: Block

    def log_prob(self, y: Any) -> Any:
        """Of the outcomes that the data hold, which ``y`` is."""
        return self._own(self.played.log_prob)

    def sample(self, key: Any = None) -> Any:
        return self._own(self.played.new(key))

    @property
    def mean(self) -> Any:
        return self._own(self.played.mean)

    def _own(self, every: Any) -> Any:
        if self.data.task is None:
            return every[:, self.block.tasks]
        return every[:, self.data.task, np.arange(every.shape[-1])]
