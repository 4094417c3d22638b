"""Any torch module as a trunk."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

NEAR = 0.1
"""Prior scale around pretrained values, where none is given."""


def fingerprint(net: torch.nn.Module) -> dict[str, Any]:
    """Shape and SHA-256 of the values of every parameter and buffer, by name."""
    return {
        name: [list(value.shape), hashlib.sha256(value.contiguous().cpu().numpy().tobytes()).hexdigest()]
        for name, value in _tensors(net).items()
    }


@dataclass(frozen=True)
class Module:
    """A ``torch.nn.Module`` of the inputs, frozen, partly or fully trainable. It runs on the Pyro engine.

    What is trainable has Normal priors: around the module's own values (fine-tuning), or around zero (a Bayesian
    network). ``trunk="point"`` estimates it by its posterior mode, ``trunk="guide"`` and NUTS infer its posterior;
    the rest keeps its values. A frozen core with trainable parts beside it and a learned blend of both, as in
    SemifreddoNets (Isikdogan et al., ECCV 2020), is a module whose forward says so and whose core no pattern names.

    The net is copied, in float32 and in evaluation mode: dropout is off and batch normalisation uses its stored
    statistics. The module given is never changed.

    Parameters
    ----------
    net : torch.nn.Module
        Maps standardised inputs, ``rows × inputs``, to features of about unit scale, ``rows × features``; each row on
        its own.
    trainable : bool or sequence of str
        Whether parameters are inferred, or which: shell-style patterns of their names, such as ``"layer4.*"``.
    pretrained : bool
        Whether priors are centred at the net's values; at zero otherwise.
    scale : float, optional
        Prior standard deviation of a bias or other vector; that of a weight (two dimensions or more) is
        ``scale / √fan-in``. A fit starts at a draw from the prior. Default: 0.1 if ``pretrained``, else 1.

    Raises
    ------
    TypeError
        If ``net`` is no module.
    ValueError
        If a pattern matches no parameter, or the scale is not positive.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4), torch.nn.Tanh())
    >>> Module(net, trainable=["2.*"]).trained
    ('2.weight', '2.bias')
    """

    net: Any = field(metadata={"saved": fingerprint})
    trainable: bool | str | tuple[str, ...] = True
    pretrained: bool = True
    scale: float | None = None

    linear: ClassVar[bool] = False
    engines: ClassVar[tuple[str, ...]] = ("pyro",)

    def __post_init__(self) -> None:
        import torch

        if not isinstance(self.net, torch.nn.Module):
            raise TypeError(f"Module needs a torch.nn.Module, got {self.net!r}")
        net = copy.deepcopy(self.net).float().eval().requires_grad_(False)
        object.__setattr__(self, "net", net)
        if not isinstance(self.trainable, bool):
            patterns = (self.trainable,) if isinstance(self.trainable, str) else tuple(self.trainable)
            object.__setattr__(self, "trainable", patterns)
            known = [name for name, _ in net.named_parameters()]
            idle = [own for own in patterns if not any(fnmatchcase(name, own) for name in known)]
            if idle:
                raise ValueError(f"no parameter is called {', '.join(map(repr, idle))}; the net has {', '.join(known)}")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"Module needs a scale > 0, got {self.scale}")

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Names of the parameters that are inferred."""
        patterns = ("*",) * self.trainable if isinstance(self.trainable, bool) else tuple(self.trainable)
        return tuple(
            name for name, _ in self.net.named_parameters() if any(fnmatchcase(name, own) for own in patterns)
        )

    @property
    def learned(self) -> bool:
        return bool(self.trained)

    def sample(self, e: Any, x: Any, copies: int) -> Any:
        if e.name not in self.engines:
            raise ValueError(f"a torch module runs on the engine pyro, not on {e.name}")
        held = _held(self.net, x.device)
        drawn = {name: self._draw(e, name, held[name], copies) for name in self.trained}
        if not drawn:
            return self._features(held, x)[None]
        first = self.trained[0]
        # Leading dimensions: draws, where an engine has any, and copies. A loop, for a net may do what vmap cannot.
        lead = drawn[first].shape[: drawn[first].ndim - held[first].ndim]
        flat = {name: value.reshape(-1, *held[name].shape) for name, value in drawn.items()}
        each = [self._features(held | {name: own[i] for name, own in flat.items()}, x) for i in range(lead.numel())]
        return e.xp.stack(each).reshape(*lead, *each[0].shape)

    def _draw(self, e: Any, name: str, value: Any, copies: int) -> Any:
        scale = self.scale or (NEAR if self.pretrained else 1.0)
        fan_in = value[0].numel() if value.ndim > 1 else 1
        prior = e.dist.Normal(value if self.pretrained else e.xp.zeros_like(value), e.asarray(scale * fan_in**-0.5))
        return e.sample(f"trunk_{name}", prior.expand([copies, *value.shape]).to_event(value.ndim + 1))

    def _features(self, tensors: Mapping[str, Any], x: Any) -> Any:
        from torch.func import functional_call

        found = functional_call(self.net, dict(tensors), (x,))
        if found.ndim != 2 or len(found) != len(x):
            raise ValueError(f"the net must give rows × features for {len(x)} rows, got shape {tuple(found.shape)}")
        return found

    def fits(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError unless the net has the saved `fingerprint`: all shapes, and the values of what is frozen."""
        own, wrong = fingerprint(self.net), "this is not the net of the saved fit:"
        for what, names in [("lacks", set(saved) - set(own)), ("has besides", set(own) - set(saved))]:
            if names:
                raise ValueError(f"{wrong} it {what} {', '.join(sorted(names))}")
        for name, (shape, digest) in own.items():
            if shape != list(saved[name][0]):
                raise ValueError(f"{wrong} {name} has shape {shape}, not {saved[name][0]}")
            if name not in self.trained and digest != saved[name][1]:
                raise ValueError(f"{wrong} {name} is frozen, and has other values")


@lru_cache(maxsize=8)
def _held(net: torch.nn.Module, device: torch.device) -> dict[str, Any]:
    """`_tensors` on a device, kept there: to move them at every step could take longer than the step."""
    return {name: value.to(device) for name, value in _tensors(net).items()}


def _tensors(net: torch.nn.Module) -> dict[str, Any]:
    """Parameters and buffers by name."""
    return dict(net.named_parameters()) | dict(net.named_buffers())
