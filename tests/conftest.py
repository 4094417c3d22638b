"""Fixtures and marks shared by all tests."""

from __future__ import annotations

import os

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(20_240_607)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a ``gpu`` test where there is no CUDA device, or fail it where one was asked for."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("BMTL_REQUIRE_GPU") == "1":
        pytest.fail("BMTL_REQUIRE_GPU=1, but torch sees no CUDA device", pytrace=False)
    pytest.skip("torch sees no CUDA device")
