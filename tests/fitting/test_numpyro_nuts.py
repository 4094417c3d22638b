"""NUTS on NumPyro compiles once for all data of one structure."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import bmtl
from bmtl.fitting import numpyro_nuts
from bmtl.models import SharedTrunk
from bmtl.trunks import Identity

pytestmark = pytest.mark.filterwarnings("ignore::bmtl.errors.ConvergenceWarning")
SHORT = {"method": "nuts", "chains": 2, "warmup": 12, "draws": 13, "max_tree_depth": 3}


@pytest.mark.parametrize("marginal", [False, True])
def test_one_compiled_sampler_serves_all_data_of_a_shape(marginal, pair, rng) -> None:
    """A second fit of other data in other units compiles nothing, and is what it would be on its own."""
    model = SharedTrunk(Identity())
    rest = bmtl.Tasks.from_arrays(
        np.asarray(pair.X), 3.0 + 2.0 * rng.normal(size=(pair.n_rows, 2)), ["gaussian"] * 2, names=pair.names
    )
    numpyro_nuts._COMPILED.clear()
    bmtl.fit(model, pair, marginal=marginal, **SHORT)
    (sampler,) = numpyro_nuts._COMPILED.values()
    # Programs compiled ahead, which refuse arrays of another shape, and one that would compile again.
    assert isinstance(sampler.start, jax.stages.Compiled) and isinstance(sampler.advance, jax.stages.Compiled)
    assert sampler.coefficients._cache_size() == marginal
    again = bmtl.fit(model, rest, marginal=marginal, **SHORT)
    assert list(numpyro_nuts._COMPILED.values()) == [sampler]
    assert sampler.coefficients._cache_size() == marginal
    numpyro_nuts._COMPILED.clear()
    alone = bmtl.fit(model, rest, marginal=marginal, **SHORT)
    for name, own in alone.draws.sites.items():
        np.testing.assert_array_equal(again.draws.sites[name], own)
    numpyro_nuts._COMPILED.clear()
