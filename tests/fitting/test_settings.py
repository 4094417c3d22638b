"""Methods, options, engines and devices: what there is, and what is said where there is not."""

from __future__ import annotations

import pytest
import torch

import bmtl
from bmtl.fitting import MAP, NUTS, SVI
from bmtl.fitting.devices import choose
from bmtl.fitting.settings import resolve
from bmtl.models import Decoupled, Merged, SharedTrunk
from bmtl.trunks import Identity

MODEL = SharedTrunk(Identity())


@pytest.mark.parametrize(("name", "kind"), [("svi", SVI), ("nuts", NUTS), ("map", MAP)])
def test_methods_by_name_and_by_object(name, kind) -> None:
    assert resolve(name, {}) == (name, kind())
    assert resolve(kind(), {}) == (name, kind())
    option = "draws" if name == "nuts" else "restarts"
    assert resolve(name, {option: 2}) == (name, kind(**{option: 2}))


def test_unknown_method(pair) -> None:
    with pytest.raises(ValueError, match="unknown method 'advi'; known: svi, nuts, map"):
        bmtl.fit(MODEL, pair, method="advi")


@pytest.mark.parametrize(
    ("method", "option", "known"),
    [("svi", "chains", "guide"), ("nuts", "guide", "chains"), ("map", "draws", "restarts")],
)
def test_unknown_option(method, option, known, pair) -> None:
    with pytest.raises(TypeError, match=f"method '{method}' has no option {option}; it has .*{known}"):
        bmtl.fit(MODEL, pair, method=method, **{option: 3})


def test_options_either_way_but_not_both(pair) -> None:
    with pytest.raises(TypeError, match=r"give options either as SVI\(...\) or by keyword, not both: .*restarts"):
        bmtl.fit(MODEL, pair, method=SVI(), restarts=1)


def test_unknown_engine(pair) -> None:
    with pytest.raises(ValueError, match="unknown engine 'stan'; known: auto, pyro, numpyro"):
        bmtl.fit(MODEL, pair, engine="stan")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SVI(guide="iaf"), "unknown guide 'iaf'; known: mean_field, low_rank, full_rank, flow"),
        (lambda: SVI(trunk="free"), "'free'.*known: .*point, guide"),
        (lambda: SVI(restarts=0), "restarts must be ≥ 1, got 0"),
        (lambda: SVI(max_steps=0), "max_steps must be ≥ 1"),
        (lambda: SVI(batch_size=-1), "batch_size must be ≥ 1, got -1"),
        (lambda: SVI(draws=0), "draws must be ≥ 1"),
        (lambda: SVI(learning_rate=0.0), "learning_rate must be > 0, got 0.0"),
        (lambda: SVI(learning_rate=float("nan")), "learning_rate must be > 0, got nan"),
        (lambda: MAP(restarts=0), "restarts must be ≥ 1"),
        (lambda: MAP(learning_rate=-1.0), "learning_rate must be > 0"),
        (lambda: NUTS(chains=0), "chains must be ≥ 1"),
        (lambda: NUTS(warmup=0), "warmup must be ≥ 1"),
        (lambda: NUTS(target_accept=1.0), r"target_accept must lie in \(0, 1\), got 1.0"),
    ],
)
def test_settings_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [SharedTrunk, Decoupled, Merged])
def test_a_class_is_not_a_model(kind, pair) -> None:
    with pytest.raises(TypeError, match=rf"did you mean {kind.__name__}\(\)\?"):
        bmtl.fit(kind, pair)


@pytest.mark.parametrize("thing", [None, "SharedTrunk", 3, bmtl.trunks.Identity()])
def test_a_thing_that_is_no_model(thing, pair) -> None:
    with pytest.raises(TypeError, match=r"a model is needed, such as bmtl.models.SharedTrunk\(\)"):
        bmtl.fit(thing, pair)


@pytest.mark.parametrize(
    ("cuda", "engine", "device", "method", "expected"),
    [
        (False, "auto", "auto", "svi", ("numpyro", "cpu")),
        (True, "auto", "auto", "svi", ("pyro", "cuda")),
        (True, "auto", "auto", "map", ("pyro", "cuda")),
        (True, "auto", "auto", "nuts", ("numpyro", "cpu")),
        (True, "auto", "cpu", "svi", ("numpyro", "cpu")),
        (True, "auto", "cuda:1", "svi", ("pyro", "cuda:1")),
        (False, "pyro", "auto", "nuts", ("pyro", "cpu")),
        (True, "pyro", "auto", "nuts", ("pyro", "cuda")),
        (True, "pyro", "cpu", "svi", ("pyro", "cpu")),
        (True, "numpyro", "auto", "svi", ("numpyro", "cpu")),
        (True, "numpyro", "cpu", "nuts", ("numpyro", "cpu")),
    ],
)
def test_engine_and_device(cuda, engine, device, method, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert choose(engine, device, method) == expected


@pytest.mark.parametrize(("engine", "method"), [("numpyro", "svi"), ("auto", "nuts")])
@pytest.mark.parametrize("cuda", [True, False])
def test_numpyro_runs_on_the_cpu(engine, method, cuda, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with pytest.raises(ValueError, match="numpyro engine runs on the CPU; for device 'cuda' use engine='pyro'"):
        choose(engine, "cuda", method)


@pytest.mark.parametrize("engine", ["auto", "pyro"])
def test_no_cuda_is_said(engine, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda:0' was asked for, but torch sees no CUDA device"):
        choose(engine, "cuda:0", "svi")
