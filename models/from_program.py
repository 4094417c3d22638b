"""A program of your own, in NumPyro or in Pyro.

Story: yours. The program draws its latent variables and observes every task at a sample site of the task's name, one
independent outcome a row:

    θ ~ program,   y_t[i] ~ program's distribution of task t at row i, given θ and x[i]

What is not observed is left out, minibatches are scaled, and the log-likelihood of every cell is read by running the
program again at the posterior draws. The families of the tasks say which outcomes are standardised and on which scale
functions are compared (the link of the expected outcome); the likelihood is the program's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import Any

from bmtl.arrangement import Arrangement
from bmtl.data import Data
from bmtl.engine import ENGINES
from bmtl.engine.own import Outcome, TaskSites
from bmtl.engine.replay import Replaying
from bmtl.errors import TaskError

OFFERED = ("x", "y", "exposure", "arrangement")


def called(function: Callable[..., None]) -> str:
    """The qualified name of a function: what a file says of it."""
    return f"{function.__module__}:{function.__qualname__}"


@dataclass(frozen=True)
class FromProgram:
    """A NumPyro or Pyro program as a model.

    Parameters
    ----------
    function : callable
        The program. It may have any of the parameters ``x`` (standardised inputs, rows × inputs), ``y`` (task to its
        outcomes, shape (rows,), standardised if its family is, filled in where not observed; None when the program
        predicts), ``exposure`` (task to shape (rows,)) and ``arrangement``. Sites of the tasks' names are observed
        whether they are given ``obs`` or not. All others are latent.
    arrangement : Arrangement, optional
        Handed to the program; `bmtl.advise` varies it. Default: one trunk, a head each.
    engine : {"numpyro", "pyro"}
        What the program is written in, and runs on.
    vectorised : bool
        Whether restarts, folds and draws are scored at once, by `torch.vmap` of the program: it may then not branch on
        latent values, nor read them as Python numbers. False: one after another. NumPyro programs always are.

    Raises
    ------
    TypeError
        If the program is no function of these, or an arrangement is given to one that takes none.
    ValueError
        If there is no such engine, or a NumPyro program is not to be vectorised.
    """

    function: Callable[..., None] = field(metadata={"saved": called})
    arrangement: Arrangement | None = None
    engine: str = "numpyro"
    vectorised: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"FromProgram needs a function, got {self.function!r}")
        unknown = sorted(set(signature(self.function).parameters) - set(OFFERED))
        if unknown:
            raise TypeError(f"a program may take {', '.join(OFFERED)}, but {called(self.function)} asks for {unknown}")
        if self.arrangement is not None and "arrangement" not in signature(self.function).parameters:
            raise TypeError(f"the program {called(self.function)} takes no arrangement that could be varied")
        if self.engine not in ENGINES:
            raise ValueError(f"unknown engine {self.engine!r}; known: {', '.join(ENGINES)}")
        if not self.vectorised and self.engine != "pyro":
            raise ValueError("vectorised=False is for Pyro programs")

    @property
    def engines(self) -> tuple[str, ...]:
        """The engine that can run the program."""
        return (self.engine,)

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return self.arrangement or Arrangement.shared(names)

    def program(self, e: Any, data: Data) -> None:
        if e.name != self.engine:
            raise ValueError(f"{called(self.function)} is a program for the engine {self.engine}, not for {e.name}")
        for block in data.blocks():
            if block.family.labels:
                raise TypeError(f"FromProgram has no outcomes with labels, and a task is {block.family.name}")
        # torch is loaded for Pyro programs alone.
        own = import_module(f"bmtl.engine.own_{self.engine}")
        if not isinstance(e, Replaying):
            own.joint(e, self, data)
            return
        played = own.Played(self, e.draws, data)
        for block in data.blocks():
            e.observed(block, Outcome(played, data, block))

    def run(self, data: Data, sites: TaskSites) -> None:
        """Run the function; its tasks' sites are those of ``sites``, a handler of its engine."""
        y = {name: own for name, (own, _, _) in sites.cells.items()} if sites.given else None
        offered = {
            "x": data.x, "y": y, "exposure": {name: own for name, (_, _, own) in sites.cells.items()},
            "arrangement": self.arranged(data.design.names),
        }
        handler: Any = sites
        with handler:
            self.function(**{name: offered[name] for name in signature(self.function).parameters})
        if missing := [name for name in data.design.names if name not in sites.found]:
            raise TaskError(f"the program {called(self.function)} has no sample site named {missing[0]!r}")
