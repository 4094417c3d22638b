"""Zarr stores: trees on disk whose draws are written as they are computed, and read where they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bmtl._files import replacing

SUFFIX = ".zarr"
"""How the path of a store ends."""

FORMAT: dict[str, Any] = {"zarr_format": 2}
"""The format in which labels are specified and metadata are in one place, which newer releases of zarr read too."""

CHUNK = 1_000_000
"""Numbers in a chunk, which is one file; one has as many draws as are computed at a time."""

Parts = Iterable[tuple[slice, str, np.ndarray]]
"""Some of the draws (those of all chains counted through), the path of a variable, and its values there."""


def is_store(path: Path) -> bool:
    return path.suffix == SUFFIX


def zarr() -> Any:
    """The package.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ImportError("stores need the package zarr: pip install 'bmtl[zarr]'") from error
    return zarr


def write(path: Path, tree: xr.DataTree, room: xr.DataTree | None = None, parts: Parts = ()) -> None:
    """Write a tree, and draws as they come; the store is there at the end, and whole, or not at all.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    tree : DataTree
        Written at once.
    room : DataTree, optional
        Further groups, whose variables, ``chain × draw × …`` in single precision, come in parts: their values are not
        read (see `blank`).
    parts : iterable
        All draws of those variables.

    Raises
    ------
    ImportError
        If zarr is not installed.
    OSError
        If the store cannot be written.
    """
    package = zarr()
    with replacing(path) as temporary:
        tree.to_zarr(temporary, mode="w", consolidated=False, **FORMAT)
        room = xr.DataTree() if room is None else room
        for node in room.children.values():
            bare = node.to_dataset().drop_vars(list(node.data_vars))
            bare.to_zarr(temporary, group=node.path, mode="a", consolidated=False, **FORMAT)
        root = package.open_group(temporary, mode="r+", **FORMAT)
        for part, name, values in parts:
            if name not in root:
                _reserve(root, name, room[name], len(values))
            _put(root[name], part, values)
        package.consolidate_metadata(str(temporary), **FORMAT)


def open_store(path: Path) -> xr.DataTree:
    """The tree of a store, of which only what is used is read."""
    zarr()
    return xr.open_datatree(path, engine="zarr")


def stored(path: Path, tree: xr.DataTree) -> xr.DataTree:
    """A tree, written to a store and opened there."""
    write(path, tree)
    return open_store(path)


def blank(shape: tuple[int, ...]) -> np.ndarray:
    """An array that takes no memory, for the shape of what is to come."""
    return np.broadcast_to(np.float32(0), shape)


def _reserve(root: Any, name: str, variable: Any, draws: int) -> None:
    """Make an array for a variable's draws, so many of which come at a time."""
    shape = variable.shape
    chunks = [1, min(draws, shape[1]), *shape[2:]]
    chunks[2] = min(chunks[2], max(1, CHUNK // (chunks[1] * int(np.prod(shape[3:])))))
    group, own = name.split("/")
    # NaN where nothing is: xarray reads as missing what equals the number that arrays are filled with.
    array = root[group].create_array(own, shape=shape, chunks=tuple(chunks), dtype="float32", fill_value=float("nan"))
    array.attrs.update({**variable.attrs, "_ARRAY_DIMENSIONS": list(variable.dims)})


def _put(array: Any, part: slice, values: np.ndarray) -> None:
    draws = array.shape[1]
    for chain in range(part.start // draws, -(-part.stop // draws)):
        first, last = max(part.start, chain * draws), min(part.stop, (chain + 1) * draws)
        array[chain, first - chain * draws : last - chain * draws] = values[first - part.start : last - part.start]


__all__ = ["Parts", "blank", "is_store", "open_store", "stored", "write"]
