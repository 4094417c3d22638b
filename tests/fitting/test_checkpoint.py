"""Checkpoints: what is kept comes back as it was, calls that differ are told apart, and what was killed goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bmtl
from bmtl.fitting import checkpoint
from bmtl.fitting.checkpoint import Checkpoint, Marks, digest
from bmtl.fitting.fit import sample
from bmtl.models import SharedTrunk
from bmtl.trunks import MLP, Identity

pytestmark = pytest.mark.filterwarnings("ignore::bmtl.ConvergenceWarning")

SVI = {"restarts": 2, "max_steps": 3000, "draws": 40}
NUTS = {"method": "nuts", "chains": 2, "warmup": 60, "draws": 60}


class Killed(BaseException):
    """As SIGKILL would: nothing is tidied up."""


def same(one: bmtl.Fit, other: bmtl.Fit) -> None:
    for name, own in one.draws.sites.items():
        np.testing.assert_array_equal(own, other.draws.sites[name])
    for name in ("trace", "elbo", "log_ratio"):
        np.testing.assert_array_equal(getattr(one.draws, name), getattr(other.draws, name))
    for name, own in one.draws.stats.items():
        np.testing.assert_array_equal(own, other.draws.stats[name])


def test_marks_keep_what_they_are_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    marks = Marks(tmp_path / "one.mark")
    assert marks.last() is None
    state = {
        "a": [np.arange(3, dtype=np.int8), (), ({"b": None},)], "c": 0.1, "d": float("inf"), "e": True, "f": "ü",
        "g": torch.tensor([1.5]), "h": np.float32(2.5),
    }
    marks.leave(lambda: state)
    back = marks.last()
    assert back["a"][0].dtype == np.int8
    assert back["a"][1:] == [(), ({"b": None},)]
    assert isinstance(back["g"], torch.Tensor)
    assert back["h"] == np.float32(2.5)
    assert {name: back[name] for name in "cdef"} == {name: state[name] for name in "cdef"}
    assert [own.name for own in tmp_path.iterdir()] == ["one.mark"]


def test_marks_are_left_now_and_then(tmp_path: Path, monkeypatch) -> None:
    clock = iter([0.0, 29.0, 31.0, 31.0, 32.0])
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    marks, made = Marks(tmp_path / "one.mark"), []
    for number in range(4):
        marks.leave(lambda number=number: made.append(number))
    assert made == [2]
    # Where workers do not share the folder, and where none was asked for.
    Marks(tmp_path / "nowhere" / "one.mark").leave(lambda: made.append(4))
    Marks().leave(lambda: made.append(5))
    assert made == [2]


def test_digests_differ_where_anything_does() -> None:
    values = [
        {"a": np.arange(3)}, {"b": np.arange(3)}, {"a": np.arange(3.0)}, {"a": np.arange(3)[::-1]}, {"a": [0, 1, 2]},
        {"a": np.arange(3)[None]}, {"a": (0, 1, 2)},
    ]
    assert len({digest(own) for own in values}) == len(values)
    assert digest({"a": np.arange(6)[::2]}) == digest({"a": np.array([0, 2, 4])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"max_steps": 500}, r"settings\.max_steps is 3000 there and 500 here"),
        ({"model": SharedTrunk(MLP((3,)))}, r"model\.fields\.trunk\.class is 'Identity' there and 'MLP' here"),
        ({"engine": "pyro"}, "engine is 'numpyro' there and 'pyro' here"),
        ({"y": 1.0}, "the tasks' y differ"),
    ],
    ids=["seed", "settings", "model", "engine", "data"],
)
def test_another_call_is_told_apart(change: dict[str, Any], words: str, tmp_path: Path, pair) -> None:
    def of(seed=0, max_steps=3000, model=SharedTrunk(Identity()), engine="numpyro", y=0.0) -> Checkpoint:  # noqa: B008
        tasks = bmtl.Tasks.from_arrays(pair.X, np.column_stack(pair.y) + y * np.eye(40)[:, :2], ["gaussian"] * 2)
        settings = bmtl.fitting.SVI(max_steps=max_steps)
        return Checkpoint.of(tmp_path / "kept", model, tasks, settings, engine, "cpu", seed)

    assert of().folder == of().folder
    with pytest.raises(ValueError, match=words):
        of(**change)


def test_other_versions_are_told_apart(tmp_path: Path, pair) -> None:
    def call() -> None:
        bmtl.fit(SharedTrunk(Identity()), pair, method="map", restarts=1, max_steps=500, checkpoint=tmp_path)

    call()
    path = tmp_path / checkpoint.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"jax": "0.0"}}))
    with pytest.raises(ValueError, match=r"versions\.jax is '0.0' there"):
        call()


def test_a_folder_of_something_else_is_refused(tmp_path: Path, pair) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is no checkpoint"):
        bmtl.fit(SharedTrunk(Identity()), pair, checkpoint=tmp_path)


def test_a_file_that_was_changed_is_named(tmp_path: Path) -> None:
    (tmp_path / "abc.npz").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"abc\.npz is not a file of a checkpoint"):
        Checkpoint(tmp_path).load("abc")


def dies_at(marks: tuple[int, ...], monkeypatch) -> list[Path]:
    """Marks are left at every occasion, and after some of them the process dies; where they were left."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    left, write = [], checkpoint._write

    def dying(path: Path, value: Any) -> None:
        write(path, value)
        left.append(path)
        if len(left) in marks:
            raise Killed

    monkeypatch.setattr(checkpoint, "_write", dying)
    return left


@pytest.mark.parametrize(
    "options", [SVI, SVI | {"engine": "pyro"}, pytest.param(NUTS, marks=pytest.mark.slow)], ids=["svi", "pyro", "nuts"]
)
def test_a_fit_that_was_killed_goes_on(options: dict[str, Any], tmp_path: Path, pair, monkeypatch) -> None:
    model = SharedTrunk(Identity())
    whole = bmtl.fit(model, pair, seed=3, **options)
    left = dies_at((2, 5), monkeypatch)
    for _ in range(2):
        with pytest.raises(Killed):
            bmtl.fit(model, pair, seed=3, checkpoint=tmp_path, **options)
    before = len(left)
    same(bmtl.fit(model, pair, seed=3, checkpoint=tmp_path, **options), whole)
    # It went on from the fifth mark, and left as many as a whole fit would have.
    total = 12 if whole.draws.trace is None else len(whole.draws.trace[0]) - whole.draws.settled
    assert before == 5
    assert len(left) == total + 1
    assert [own.suffix for own in tmp_path.iterdir() if own.name != checkpoint.MANIFEST] == [".npz"]


@pytest.mark.filterwarnings("ignore::bmtl.errors.PowerPosteriorWarning")
@pytest.mark.parametrize(
    "options",
    [{"optimiser": "gains"}, {"guide": "flow"}, {"weighting": bmtl.training.GradNorm()}],
    ids=["gains", "flow", "GradNorm"],
)
def test_fits_one_after_another_go_on(options: dict[str, Any], tmp_path: Path, pair, monkeypatch) -> None:
    """On Pyro: those that were done stay done, the one under way goes on with all that its optimiser knew."""
    how = {"restarts": 2, "max_steps": 750, "draws": 40, "trunk": "guide", "engine": "pyro"} | options
    model = SharedTrunk(MLP((3,)))
    whole = bmtl.fit(model, pair, seed=3, **how)
    runs = len(whole.draws.trace)
    left = dies_at((2, 4, 5), monkeypatch)
    killed = 0
    while True:
        try:
            found = bmtl.fit(model, pair, seed=3, checkpoint=tmp_path, **how)
            break
        except Killed:
            killed += 1
    same(found, whole)
    assert killed == (3 if runs == 2 else 2)
    # Three occasions a run, and the result.
    assert len(left) == 3 * runs + 1


def test_nothing_finished_is_repeated(tmp_path: Path, pair, monkeypatch) -> None:
    quick = {"restarts": 1, "max_steps": 500, "draws": 30, "folds": 2}
    fitted: list[str] = []

    def counting(model: Any, *arguments: Any) -> Any:
        fitted.append(str(model.arranged(pair.names)))
        if len(fitted) in (2, 4):
            raise Killed
        return sample(model, *arguments)

    model = SharedTrunk(Identity())
    whole = bmtl.advise(model, pair, **quick)
    monkeypatch.setattr("bmtl.fitting.fit.sample", counting)
    found = []
    while not found:
        try:
            found.append(bmtl.advise(model, pair, checkpoint=tmp_path, **quick))
        except Killed:
            continue
    killed = 2
    assert len(fitted) == len(list(tmp_path.glob("*.npz"))) + killed
    assert found[0].pairs.equals(whole.pairs) and found[0].tasks.equals(whole.tasks)
    assert found[0].arrangement == whole.arrangement
    again = len(fitted)
    bmtl.advise(model, pair, checkpoint=tmp_path, **quick)
    assert len(fitted) == again


KILLS = """
import os, random, signal, sys, time, traceback, warnings
from pathlib import Path
import numpy as np
import bmtl, bmtl.advice, bmtl.models
from bmtl.fitting import checkpoint, fit, jobs, numpyro_svi

warnings.simplefilter("ignore")
checkpoint.SECONDS = 0.05
run, root = jobs.Job.run, Path(sys.argv[1])
rng = np.random.default_rng(5)
X = rng.normal(size=(60, 2))
Y = np.c_[np.tanh(X @ [1.0, 0.2]), np.tanh(X @ [0.3, -1.0])] + 0.5 * rng.normal(size=(60, 2))
tasks = bmtl.Tasks.from_arrays(X, Y, ["gaussian"] * 2)
model = bmtl.models.SharedTrunk(bmtl.trunks.MLP((4,)))


def advise(name):
    def logged(job, *rest):
        with open(root / f"{name}.log", "a") as log:
            log.write(job.key + chr(10))
        return run(job, *rest)

    jobs.Job.run = logged
    own = bmtl.advise(model, tasks, folds=2, restarts=1, max_steps=4000, draws=50, checkpoint=root / name)
    np.savez(root / f"{name}.npz", **own.fit.draws.sites)
    for table in ("pairs", "tasks", "differences"):
        getattr(own, table).to_json(root / f"{name}.{table}", double_precision=15)


def child(name, seconds=None):
    # Packages are loaded once, here; nothing runs before the fork.
    pid = os.fork()
    if pid == 0:
        try:
            advise(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + (seconds or 1e9)
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0
            return True
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


assert child("first")
begin = time.monotonic()
assert child("whole")
seconds = time.monotonic() - begin
random.seed(0)
kills = number = 0
while kills < int(sys.argv[2]):
    name = f"killed{number}"
    done = {own.stem for own in (root / name).glob("*.npz")}
    log = root / f"{name}.log"
    before = len(log.read_text().split()) if log.exists() else 0
    over = child(name, random.uniform(0.0, 0.7 * seconds))
    kills += not over
    number += over
    assert not done & set(log.read_text().split()[before:] if log.exists() else [])
assert child(f"killed{number}")
print(number + 1)
"""


@pytest.mark.slow
def test_advice_that_is_killed_twenty_times_is_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), "20"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for number in range(int(done.stdout)):
        for name in ("pairs", "tasks", "differences"):
            assert (tmp_path / f"whole.{name}").read_text() == (tmp_path / f"killed{number}.{name}").read_text()
        with np.load(tmp_path / "whole.npz") as ours, np.load(tmp_path / f"killed{number}.npz") as theirs:
            for name in ours.files:
                np.testing.assert_array_equal(ours[name], theirs[name])
