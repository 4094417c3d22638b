"""Saved fits: what is read is what was written, whole or not at all, and nothing in a file is executed."""

from __future__ import annotations

import json
import os
import warnings

import arviz_stats
import h5py
import numpy as np
import pytest
import xarray as xr

import bmtl
from bmtl import storage
from bmtl.arrangement import Arrangement
from bmtl.fitting import MAP, NUTS, SVI
from bmtl.models import Decoupled, Merged, SharedTrunk
from bmtl.noise import Known
from bmtl.trees import variables
from bmtl.trunks import MLP, Identity, Linear

SETTINGS = {"svi": SVI(restarts=2, draws=60, trunk="point"), "nuts": NUTS(chains=2, draws=40), "map": MAP(restarts=1)}
MODELS = {
    "svi": SharedTrunk(
        MLP((3,)), arrangement=Arrangement(((("any", "size"),), (("tail", "count"), ("burst",))), frozenset({"any"}))
    ),
    "nuts": Merged(Identity(), flipped=("tail",)),
    "map": Decoupled(Linear(2), noise=Known(2.0)),
}


@pytest.fixture(scope="module", params=SETTINGS)
def fit(request, five, made):
    return made(MODELS[request.param], five, SETTINGS[request.param])


@pytest.fixture(scope="module")
def saved(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "fit.nc"
    fit.save(path)
    return path


def test_there_and_back(fit, saved, five) -> None:
    back = bmtl.load(saved)
    assert (back.model, back.settings, back.seed, back.engine, back.device, back.method) == (
        fit.model, fit.settings, fit.seed, fit.engine, fit.device, fit.method,
    )
    assert back.arrangement == fit.arrangement and back.summary() == fit.summary() and repr(back) == repr(fit)
    for ours, theirs in [(fit.draws.sites, back.draws.sites), (fit.draws.stats, back.draws.stats)]:
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
            assert ours[name].dtype == theirs[name].dtype
    for name in ("trace", "elbo", "log_ratio"):
        ours, theirs = getattr(fit.draws, name), getattr(back.draws, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)
    assert (back.draws.settled, back.draws.seconds) == (fit.draws.settled, fit.draws.seconds)
    assert back.tasks.names == five.names and back.tasks.families == five.families
    for t in range(5):
        np.testing.assert_array_equal(back.tasks.y[t], five.y[t])
        np.testing.assert_array_equal(back.tasks.rows[t], five.rows[t])
        np.testing.assert_array_equal(back.tasks.exposure[t], five.exposure[t])


def test_tables_and_predictions_are_the_same(fit, saved, five) -> None:
    back = bmtl.load(saved)
    assert back.weights().equals(fit.weights()) and back.checks.equals(fit.checks)
    if fit.method != "map":
        assert back.elpd().equals(fit.elpd())
    x = five.X[:4]
    for group, node in fit.predict(x, exposure=2.0).children.items():
        xr.testing.assert_equal(node.to_dataset(), back.predict(x, exposure=2.0)[group].to_dataset())
    # Equal, not identical: the time of making is an attribute.
    xr.testing.assert_equal(back.data, fit.data)
    assert back.data.attrs == fit.data.attrs


def test_a_loaded_fit_can_be_saved_again(saved, tmp_path) -> None:
    bmtl.load(saved).save(tmp_path / "again.nc")
    xr.testing.assert_equal(bmtl.load(tmp_path / "again.nc").data, bmtl.load(saved).data)


def test_arviz_reads_the_file(fit, saved) -> None:
    with xr.open_datatree(saved, engine="h5netcdf") as tree:
        tree.load()
    groups = {"posterior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data"}
    assert groups <= set(tree.children)
    assert tree["posterior"]["noise"].dims == ("chain", "draw", "noise_task")
    table = arviz_stats.summary(tree, var_names=["noise"], kind="stats")
    assert len(table) == len(fit.noise)
    if fit.method == "nuts":
        for name in fit.tasks.names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # likelihoods of draws that nobody fitted are wild
                found = arviz_stats.loo(tree, var_name=name, reff=1.0, pointwise=True)
            assert found.elpd_i.shape == fit.loo[name].pointwise.shape


def test_provenance_is_in_the_file(saved, fit) -> None:
    with xr.open_datatree(saved, engine="h5netcdf") as tree:
        attrs = tree.attrs
    assert json.loads(attrs["versions"])["bmtl"] == bmtl.__version__
    assert attrs["engine"] == fit.engine and attrs["seed"] == 0 and json.loads(attrs["settings"])["fields"]


def test_long_layout(grouped, made, tmp_path) -> None:
    fit = made(SharedTrunk(Linear(1)), grouped("poisson"), SVI(draws=30))
    fit.save(tmp_path / "long.nc")
    back = bmtl.load(tmp_path / "long.nc")
    assert back.tasks.layout == "long"
    for ours, theirs in zip(fit.log_likelihood, back.log_likelihood, strict=True):
        np.testing.assert_array_equal(ours, theirs)


AWKWARD = (
    "a/b", "a_per_b", "task", "task_", "draw", "chain", "sample", "row", "head", "intercept", "amplitude", "noise",
    "noise_task", "noise_gaussian", "gaussian_task", "inputs", "input", "x0", "obs_x0", "two words", " padded",
    "naïve Σ", "日本", ".", "..", "a.b", "1", "_",
)


def test_awkward_task_names(made, tmp_path) -> None:
    """Every task keeps its own outcomes and draws, whatever it is called."""
    rng = np.random.default_rng(0)
    n = len(AWKWARD)
    X, Y = rng.normal(size=(12, 2)), rng.normal(size=(12, n))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * n, AWKWARD, inputs=["first", "second"])
    fit = made(SharedTrunk(Identity()), tasks, SVI(draws=30))
    labels = variables(AWKWARD)
    assert len(set(labels)) == n
    for t, label in enumerate(labels):
        np.testing.assert_array_equal(fit.data["observed_data"].dataset[label], tasks.y[t])
        np.testing.assert_array_equal(fit.data["log_likelihood"].dataset[label], fit.log_likelihood[t])
    fit.save(tmp_path / "fit.nc")
    back = bmtl.load(tmp_path / "fit.nc")
    assert back.tasks.names == tasks.names
    for name, value in fit.draws.sites.items():
        np.testing.assert_array_equal(value, back.draws.sites[name])
    np.testing.assert_array_equal(back.data["posterior"]["intercept"].values, fit.draws.sites["intercept"])
    assert back.data["posterior"]["intercept"].dims == ("chain", "draw", "task")
    assert back.weights().equals(fit.weights())
    assert len(fit.predict(tasks.X)["mean"].data_vars) == n


@pytest.mark.parametrize("name", AWKWARD)
def test_one_awkward_task(name, made, tmp_path) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(9, 1)), rng.normal(size=(9, 2))
    tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2, names=[name, "b"], inputs=["first"])
    fit = made(SharedTrunk(Identity()), tasks, MAP())
    fit.save(tmp_path / "fit.nc")
    back = bmtl.load(tmp_path / "fit.nc")
    np.testing.assert_array_equal(back.data["observed_data"].dataset[variables([name])[0]], tasks.y[0])
    assert back.tasks.names == (name, "b")
    for site, value in fit.draws.sites.items():
        np.testing.assert_array_equal(value, back.draws.sites[site])


@pytest.fixture(scope="module")
def small(pair, made):
    return made(SharedTrunk(Identity()), pair, MAP())


class Stopped(BaseException):
    """Something that interrupts, as Ctrl-C would."""


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), Stopped()], ids=["full", "ctrl-c", "other"])
@pytest.mark.parametrize("where", ["write", "replace"])
@pytest.mark.parametrize("existing", [True, False])
def test_an_interrupted_save_leaves_nothing_behind(error, where, existing, small, tmp_path, monkeypatch) -> None:
    path = tmp_path / "fit.nc"
    if existing:
        small.save(path)
        before = path.read_bytes()

    def fail(*args, **kwargs):
        if where == "write":
            with open(args[1], "wb") as part:
                part.write(b"half a file")
        raise error

    monkeypatch.setattr(*((xr.DataTree, "to_netcdf") if where == "write" else (os, "replace")), fail)
    with pytest.raises(type(error)):
        small.save(path)
    assert [file.name for file in tmp_path.iterdir()] == (["fit.nc"] if existing else [])
    if existing:
        assert path.read_bytes() == before


def test_saving_replaces(small, tmp_path) -> None:
    path = tmp_path / "fit.nc"
    path.write_text("something else")
    small.save(str(path))
    assert bmtl.load(str(path)).model == small.model
    assert [file.name for file in tmp_path.iterdir()] == ["fit.nc"]


def test_saving_where_there_is_no_folder(small, tmp_path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        small.save(tmp_path / "nowhere" / "fit.nc")


def test_no_such_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.nc"):
        bmtl.load(tmp_path / "none.nc")


def junk(path, kind: str) -> None:
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a fit\n" * 100)
    elif kind == "pickle":
        path.write_bytes(b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.")
    elif kind == "foreign netCDF":
        xr.Dataset({"t": ("x", np.arange(3.0))}).to_netcdf(path, engine="h5netcdf")
    elif kind == "foreign HDF5":
        with h5py.File(path, "w") as file:
            file["data"] = np.arange(3)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "foreign netCDF", "foreign HDF5", "folder"])
def test_junk_is_refused(kind, tmp_path) -> None:
    path = tmp_path / "junk.nc"
    junk(path, kind)
    with pytest.raises(ValueError, match=r"junk\.nc is not a fit saved by bmtl"):
        bmtl.load(path)


def test_a_truncated_file_is_refused(small, tmp_path) -> None:
    path = tmp_path / "fit.nc"
    small.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"fit\.nc is not a fit saved by bmtl"):
        bmtl.load(path)


@pytest.mark.parametrize("attribute", ["model", "settings"])
@pytest.mark.parametrize("name", ["os.system", "os:system", "Mine", "Fit", "Path", "eval", "Protocol", "Trunk"])
def test_a_tampered_class_is_refused(attribute, name, small, tmp_path) -> None:
    """A file can name the parts of bmtl and installed models; any other name is refused, not looked up."""
    path = tmp_path / "fit.nc"
    small.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = json.dumps({"class": name, "fields": {"command": "touch here"}})
    with pytest.raises(ValueError, match=r"is not installed|is not a fit"):
        bmtl.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["fit.nc"]


@pytest.mark.parametrize(
    "saved",
    [
        {"class": "MLP", "fields": {"depth": 3}},
        {"class": "MLP"},
        {"fields": {}},
        {"class": "Known", "fields": {"value": -1}},
    ],
    ids=["unknown field", "no fields", "no class", "bad value"],
)
def test_a_tampered_specification_is_refused(saved, small, tmp_path) -> None:
    path = tmp_path / "fit.nc"
    small.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model"] = json.dumps({"class": "SharedTrunk", "fields": {"trunk": saved}})
    with pytest.raises(ValueError, match=r"fit\.nc is not a fit|needs a finite value"):
        bmtl.load(path)


def test_an_unknown_model_is_named() -> None:
    message = "the model 'Mine' is not installed; installed: CausalTasks, Decoupled, "
    with pytest.raises(ValueError, match=message):
        storage.restore({"class": "Mine", "fields": {}})
