"""A NumPyro program of your own.

Story: yours. The program draws its latent variables and observes every task at a sample site of the task's name, one
independent outcome a row:

    θ ~ program,   y_t[i] ~ program's distribution of task t at row i, given θ and x[i]

What is not observed is left out, minibatches are scaled, and the log-likelihood of every cell is read by running the
program again at the posterior draws. The families of the tasks say which outcomes are standardised and on which scale
functions are compared (the link of the expected outcome); the likelihood is the program's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from numpyro.handlers import seed, substitute
from numpyro.primitives import Messenger

from bmtl.arrangement import Arrangement
from bmtl.data import Block, Data
from bmtl.engine.replay import Replaying
from bmtl.errors import TaskError
from bmtl.trees import RESERVED, RESERVED_START

OFFERED = ("x", "y", "exposure", "arrangement")


def called(function: Callable[..., None]) -> str:
    """The qualified name of a function: what a file says of it."""
    return f"{function.__module__}:{function.__qualname__}"


@dataclass(frozen=True)
class FromProgram:
    """A NumPyro program as a model.

    Parameters
    ----------
    function : callable
        The program. It may have any of the parameters ``x`` (standardised inputs, rows × inputs), ``y`` (task to its
        outcomes, shape (rows,), standardised if its family is, filled in where not observed; None when the program
        predicts), ``exposure`` (task to shape (rows,)) and ``arrangement``. Sites of the tasks' names are observed
        whether they are given ``obs`` or not. All others are latent.
    arrangement : Arrangement, optional
        Handed to the program; `bmtl.advise` varies it. Default: one trunk, a head each.

    Raises
    ------
    TypeError
        If the program is no function of these, or an arrangement is given to one that takes none.
    """

    function: Callable[..., None] = field(metadata={"saved": called})
    arrangement: Arrangement | None = None

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"FromProgram needs a function, got {self.function!r}")
        unknown = sorted(set(signature(self.function).parameters) - set(OFFERED))
        if unknown:
            raise TypeError(f"a program may take {', '.join(OFFERED)}, but {called(self.function)} asks for {unknown}")
        if self.arrangement is not None and "arrangement" not in signature(self.function).parameters:
            raise TypeError(f"the program {called(self.function)} takes no arrangement that could be varied")

    def arranged(self, names: tuple[str, ...]) -> Arrangement:
        return self.arrangement or Arrangement.shared(names)

    def program(self, e: Any, data: Data) -> None:
        for block in data.blocks():
            if isinstance(e, Replaying):
                e.observed(block, _Outcome(self, e.draws, data, block))
            elif block.family.labels:
                raise TypeError(f"FromProgram has no outcomes with labels, and a task is {block.family.name}")
        if not isinstance(e, Replaying):
            self.run(data, _Sites(data))

    def run(self, data: Data, sites: _Sites) -> None:
        """Run the program; its tasks' sites are those of ``sites``."""
        y = {name: own for name, (own, _, _) in sites.cells.items()} if sites.given else None
        offered = {
            "x": data.x, "y": y, "exposure": {name: own for name, (_, _, own) in sites.cells.items()},
            "arrangement": self.arranged(data.design.names),
        }
        with sites:
            self.function(**{name: offered[name] for name in signature(self.function).parameters})
        if missing := [name for name in data.design.names if name not in sites.found]:
            raise TaskError(f"the program {called(self.function)} has no sample site named {missing[0]!r}")


class _Sites(Messenger):
    """Observes the tasks' sites: every site of a task's name has its cells, and only those that were observed count.

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
        Task to the distribution of its outcomes, batch shape (rows,).
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

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name not in self.cells:
            if name in RESERVED or name.startswith(RESERVED_START):
                raise ValueError(f"a fit has a name of its own for the site {name!r}: call it something else")
            return
        y, mask, _ = self.cells[name]
        fn = msg["fn"]
        if fn.event_shape or len(fn.batch_shape) > 1:
            shape = f"batch shape {fn.batch_shape} and event shape {fn.event_shape}"
            raise TaskError(f"the site {name!r} must have one outcome a row, but has {shape}")
        self.found[name] = fn = fn.expand(y.shape)
        if self.given:
            msg["fn"], msg["value"], msg["is_observed"] = fn.mask(mask), y, True
            power = self.data.values.get("power")
            msg["scale"] = self.data.scale if power is None else self.data.scale * power[self.tasks[name]]


@dataclass(frozen=True)
class _Outcome:
    """The outcomes of a block at posterior draws, ``draws × tasks × rows`` (long: ``draws × rows``)."""

    model: FromProgram
    draws: Mapping[str, Any]
    data: Data
    block: Block

    def log_prob(self, y: Any) -> Any:
        return self._read(lambda fn, own, key: fn.log_prob(own), given=True)

    def sample(self, key: Any) -> Any:
        return self._read(lambda fn, own, key: fn.sample(key), key)

    @property
    def mean(self) -> Any:
        return self._read(lambda fn, own, key: fn.mean)

    def _read(self, read: Callable[[Any, Any, Any], Any], key: Any = None, given: bool = False) -> Any:
        names = [self.data.design.names[t] for t in self.block.tasks]

        def one(draw: Mapping[str, Any], key: Any) -> Any:
            sites = _Sites(self.data, given)
            with seed(rng_seed=key), substitute(data=draw):
                self.model.run(self.data, sites)
            keys = jax.random.split(jax.random.fold_in(key, 1), len(names))
            return jnp.stack([
                jnp.broadcast_to(read(sites.found[name], sites.cells[name][0], own), self.data.x.shape[:1])
                for name, own in zip(names, keys, strict=True)
            ])

        total = len(next(iter(self.draws.values())))
        keys = jax.random.split(jax.random.PRNGKey(0) if key is None else key, total)
        found = jax.vmap(one)(dict(self.draws), keys)
        if self.data.task is None:
            return found
        own = self.data.task == jnp.asarray(self.block.tasks)[:, None]
        return jnp.sum(jnp.where(own, found, 0.0), axis=1)
