"""Fits and predictions in zarr stores: what is streamed is what would have been held, whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import bmtl
from bmtl import replay, stores, trees
from bmtl.fitting import MAP, NUTS, SVI
from bmtl.models import Merged, SharedTrunk
from bmtl.trunks import MLP, Identity, Linear

pytest.importorskip("zarr", reason="needs zarr: pip install 'bmtl[zarr]'")

SETTINGS = {"svi": SVI(restarts=2, draws=60, trunk="point"), "nuts": NUTS(chains=2, draws=40), "map": MAP(restarts=1)}


@pytest.fixture
def few_at_once(five, monkeypatch) -> None:
    """Seven draws of all cells at a time: parts that end within a chain, and parts with draws of two."""
    monkeypatch.setattr(replay, "CELLS_AT_ONCE", 7 * 5 * five.n_rows)


@pytest.mark.parametrize("method", SETTINGS)
def test_there_and_back(method, five, made, tmp_path) -> None:
    fit = made(SharedTrunk(MLP((3,))), five, SETTINGS[method])
    fit.save(tmp_path / "fit.zarr")
    back = bmtl.load(tmp_path / "fit.zarr")
    assert repr(back) == repr(fit) and back.checks.equals(fit.checks)
    for name, value in fit.draws.sites.items():
        np.testing.assert_array_equal(back.draws.sites[name], value)
    xr.testing.assert_equal(back.data, fit.data)
    assert back.data.attrs == fit.data.attrs
    with stores.open_store(tmp_path / "fit.zarr") as tree:
        assert set(fit.data.children) <= set(tree.children)
        for name in five.names:
            xr.testing.assert_equal(tree["log_likelihood"][name], fit.data["log_likelihood"][name])


@pytest.mark.usefixtures("few_at_once")
def test_likelihoods_too_many_for_the_tree(five, made, tmp_path, monkeypatch) -> None:
    """They come in parts, and are those that the tree would have had."""
    fit = made(Merged(Identity()), five, NUTS(chains=3, draws=40))
    whole = made(Merged(Identity()), five, NUTS(chains=3, draws=40)).data["log_likelihood"]
    monkeypatch.setattr(trees, "LIKELIHOOD_CELLS", 0)
    monkeypatch.setattr(bmtl.Fit, "log_likelihood", None)
    fit.save(tmp_path / "fit.zarr")
    with stores.open_store(tmp_path / "fit.zarr") as tree:
        found = tree["log_likelihood"].to_dataset().load()
    xr.testing.assert_equal(found, whole.to_dataset())
    assert bmtl.load(tmp_path / "fit.zarr").draws.shape == (3, 40)


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("family", ["categorical", "poisson"])
def test_predictions(family, grouped, five, made, tmp_path) -> None:
    tasks = grouped(family) if family == "categorical" else five
    fit = made(SharedTrunk(Linear(2)), tasks, NUTS(chains=2, draws=20))
    held = fit.predict(tasks.X, seed=3)
    stored = fit.predict(tasks.X, seed=3, store=tmp_path / "new.zarr")
    for group in ("mean", "predictions"):
        xr.testing.assert_equal(stored[group].to_dataset(), held[group].to_dataset())
        for name, variable in held[group].data_vars.items():
            assert stored[group][name].attrs == variable.attrs


def test_a_store_is_replaced_as_a_whole(five, made, tmp_path, monkeypatch) -> None:
    """An error on the way leaves the one there was, and nothing beside it."""
    path = tmp_path / "new.zarr"
    fit = made(SharedTrunk(Linear(1)), five, SVI(draws=30))
    before = fit.predict(five.X, store=path).load()
    assert fit.predict(five.X[:4], store=path)["mean"].sizes["row"] == 4

    def broken(*arguments):
        yield from list(parts(*arguments))[:3]
        raise OSError("the disk is full")

    parts = replay.predict_parts
    monkeypatch.setattr(replay, "predict_parts", broken)
    with pytest.raises(OSError, match="the disk is full"):
        fit.predict(five.X, store=path)
    assert [own.name for own in tmp_path.iterdir()] == ["new.zarr"]
    left = stores.open_store(path)
    xr.testing.assert_equal(left["mean"].to_dataset(), before["mean"].to_dataset().isel(row=slice(4)))


def test_not_a_store(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        bmtl.load(tmp_path / "none.zarr")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(ValueError, match="not a fit saved by bmtl"):
        bmtl.load(tmp_path / "folder.zarr")
    stores.write(tmp_path / "other.zarr", xr.DataTree(xr.Dataset({"a": 1.0})))
    with pytest.raises(ValueError, match="not a fit saved by bmtl"):
        bmtl.load(tmp_path / "other.zarr")


def test_without_zarr(five, made, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'bmtl\[zarr\]'"):
        made(SharedTrunk(Linear(1)), five, SVI(draws=30)).save(tmp_path / "fit.zarr")
    assert list(Path(tmp_path).iterdir()) == []
