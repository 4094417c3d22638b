"""Fits that are kept while more are to come, so that a run that was killed can go on.

A checkpoint is a folder: ``manifest.json`` says of what call it is, and there is one file a finished fit, named by all
that it depends on, and one a fit under way (``.mark``). Files are arrays and JSON, and are written as a whole or not at
all.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from bmtl import versions
from bmtl._files import replacing
from bmtl.fitting.draws import Draws
from bmtl.fitting.settings import Settings
from bmtl.model import specification
from bmtl.tasks import Tasks

MANIFEST = "manifest.json"
SECONDS = 30.0
"""Between two marks of a fit under way."""

KEPT = tuple(own.name for own in fields(Draws) if own.name not in ("constants", "checked"))
"""Fields of draws as engines give them; the others belong to draws that are pooled."""


@dataclass
class Marks:
    """Where a fit under way leaves its state now and then, to go on from if it is started again.

    Parameters
    ----------
    path : Path, optional
        Of the file. Default: nothing is left.
    """

    path: Path | None = None
    _left: float | None = field(default=None, repr=False)

    def last(self) -> Any:
        """The state that was left; None if there is none."""
        return _read(self.path) if self.path is not None and self.path.exists() else None

    def leave(self, state: Callable[[], Any]) -> None:
        """Leave what ``state`` gives, if it is time: nested mappings and sequences of arrays and numbers."""
        # Workers of an executor may not share a file system with who sent the work.
        if self.path is None or not self.path.parent.is_dir():
            return
        now = time.monotonic()
        self._left = now if self._left is None else self._left
        if now - self._left >= SECONDS:
            _write(self.path, state())
            self._left = time.monotonic()


@dataclass(frozen=True)
class Checkpoint:
    """A folder of fits."""

    folder: Path

    @classmethod
    def of(
        cls, folder: str | Path, model: Any, tasks: Tasks, settings: Settings, engine: str, device: str, seed: int,
        **more: Any,
    ) -> Checkpoint:
        """The checkpoint of a call, new or found.

        Raises
        ------
        ValueError
            If the folder is the checkpoint of another call, or of other versions, or holds something else.
        """
        folder = Path(folder)
        meta, data = tasks.spec()
        about = json.loads(json.dumps({
            "model": specification(model), "settings": {
                "method": type(settings).__name__, **{name: specification(own) for name, own in vars(settings).items()},
            },
            "engine": engine, "device": device, "seed": seed, **more, "versions": versions.installed(),
            "tasks": meta, "data": {name: digest(value) for name, value in data.items()},
        }))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / MANIFEST
        if path.exists():
            _compare(folder, json.loads(path.read_text("utf-8")), about)
        elif any(not own.name.endswith(".part") for own in folder.iterdir()):
            raise ValueError(f"{folder} holds files and is no checkpoint: give a new folder")
        else:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(about, indent=1), "utf-8")
        for left in folder.glob(".*.part"):
            left.unlink(missing_ok=True)
        return cls(folder)

    def load(self, key: str) -> list[Draws] | None:
        """The draws of a finished job; None if it is not."""
        path = self._path(key)
        return [Draws(**own) for own in _read(path)] if path.exists() else None

    def save(self, key: str, found: list[Draws]) -> None:
        """Keep the draws of a job."""
        _write(self._path(key), [{name: getattr(own, name) for name in KEPT} for own in found])
        self._mark(key).unlink(missing_ok=True)

    def marks(self, key: str) -> Marks:
        """Where a job leaves its state while it is under way."""
        return Marks(self._mark(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _mark(self, key: str) -> Path:
        return self.folder / f"{key}.mark"


def digest(value: Any) -> str:
    """A hash of nested mappings, sequences, arrays and JSON."""
    arrays: list[np.ndarray] = []
    found = hashlib.blake2b(json.dumps(_packed(value, arrays)).encode(), digest_size=16)
    for own in arrays:
        found.update(f"{own.dtype}{own.shape}".encode())
        found.update(np.ascontiguousarray(own).data)
    return found.hexdigest()


def _compare(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise ValueError that names what differs between two manifests."""
    old, new = _leaves(there), _leaves(here)
    gaps = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    own = [
        f"the tasks' {name.removeprefix('data.')} differ" if name.startswith("data.")
        else f"{name} is {old.get(name)!r} there and {new.get(name)!r} here"
        for name in gaps
    ]
    if own:
        raise ValueError(f"{folder} is the checkpoint of another call: {'; '.join(own)}. Give a new folder")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Dotted names of all that is no mapping in nested mappings."""
    if not isinstance(value, Mapping):
        return {name: value}
    each = [_leaves(own, f"{name}.{key}".removeprefix(".")) for key, own in value.items()]
    return {path: leaf for own in each for path, leaf in own.items()}


def _write(path: Path, value: Any) -> None:
    arrays: list[np.ndarray] = []
    text = json.dumps(_packed(value, arrays))
    members: dict[str, Any] = {"text": np.array(text)} | {f"a{place}": own for place, own in enumerate(arrays)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **members)


def _read(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as held:
            return _unpacked(json.loads(str(held["text"])), held)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of a checkpoint, or was changed: {error}") from error


def _packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON that stands for nested mappings, sequences and arrays, with the arrays in a list of their own."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {"mapping": [[key, _packed(own, arrays)] for key, own in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_packed(own, arrays) for own in value]}
    # What is left are arrays, of torch too.
    kind = "tensor" if hasattr(value, "detach") else "array"
    arrays.append(np.asarray(value))
    return {kind: len(arrays) - 1}


def _unpacked(packed: Any, held: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(packed, Mapping):
        return packed
    ((kind, own),) = packed.items()
    if kind == "mapping":
        return {key: _unpacked(value, held) for key, value in own}
    if kind in ("list", "tuple"):
        found = [_unpacked(value, held) for value in own]
        return found if kind == "list" else tuple(found)
    if kind == "tensor":
        import torch

        return torch.as_tensor(held[f"a{own}"])
    return held[f"a{own}"]
