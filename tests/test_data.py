"""Arrays that programs see."""

from __future__ import annotations

import numpy as np
import pytest

from bmtl.data import Data, Design, arrays, inputs_only, take_rows
from bmtl.families import StudentT
from bmtl.tasks import Tasks


def test_wide_arrays_hold_every_cell(five) -> None:
    design = Design.of(five)
    values = arrays(five, design)
    np.testing.assert_allclose(values["x"], five.Z, rtol=1e-6)
    assert "task" not in values
    seen = []
    for block in Data(design, values).blocks():
        for j, t in enumerate(block.tasks):
            seen.append(t)
            np.testing.assert_array_equal(np.flatnonzero(block.mask[j]), five.rows[t])
            np.testing.assert_allclose(block.y[j][block.mask[j]], five.y_std(t), rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(block.exposure[j][block.mask[j]], five.exposure[t], rtol=1e-6)
            assert np.all(block.y[j][~block.mask[j]] == block.family.filler)
            assert np.all(block.exposure[j][~block.mask[j]] == 1)
    assert sorted(seen) == list(range(5))


def test_long_arrays_hold_every_cell(grouped) -> None:
    tasks = grouped("poisson")
    design = Design.of(tasks)
    values = arrays(tasks, design)
    (block,) = Data(design, values).blocks()
    assert block.y.shape == (tasks.n_rows,)
    for t in range(3):
        mine = (values["task"] == t) & block.mask
        np.testing.assert_array_equal(np.flatnonzero(mine), tasks.rows[t])
        np.testing.assert_allclose(block.y[mine], tasks.y[t])
        np.testing.assert_allclose(block.exposure[mine], tasks.exposure[t], rtol=1e-6)
    assert block.mask.sum() == tasks.n_cells.sum() == tasks.n_rows - 2


def test_arrays_are_32_bit(five, seven, grouped) -> None:
    for tasks in (five, seven, grouped("gaussian"), grouped("ordinal")):
        for name, value in arrays(tasks, Design.of(tasks)).items():
            whole = name in ("task", "y/categorical", "y/ordinal")
            expected = np.int32 if whole else np.bool_ if name.startswith("mask/") else np.float32
            assert value.dtype == expected


def test_equal_families_share_a_block() -> None:
    """Families are equal when their parameters are: two kinds of Student-t stand in two blocks."""
    rng = np.random.default_rng(0)
    families = ["gaussian", StudentT(4), "gaussian", StudentT(9), StudentT(4)]
    tasks = Tasks.from_arrays(rng.normal(size=(9, 1)), rng.normal(size=(9, 5)), families)
    design = Design.of(tasks)
    assert {name: members.tolist() for name, members in design.groups.items()} == {
        "gaussian": [0, 2], "student_t": [1, 4], "student_t_2": [3],
    }
    blocks = {block.name: block.family for block in Data(design, arrays(tasks, design)).blocks()}
    assert blocks["y_student_t"] == StudentT(4) and blocks["y_student_t_2"] == StudentT(9)


def test_design_follows_the_tasks(five) -> None:
    design = Design.of(five)
    np.testing.assert_array_equal(design.unit, five.y_scale)
    np.testing.assert_allclose(design.intercept_loc[0], 0.0, atol=1e-12)
    assert design.intercept_loc[3] == pytest.approx(np.log((five.y[3].sum() + 0.5) / five.exposure[3].sum()))
    assert (design.n_tasks, design.n_rows, design.n_inputs) == (5, 24, 3)


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_minibatch_is_the_same_rows_of_everything(layout, five, grouped) -> None:
    tasks = five if layout == "wide" else grouped("gaussian")
    values = arrays(tasks, Design.of(tasks))
    index = np.array([7, 2, 2, 11])
    part = take_rows(values, index)
    assert set(part) == set(values)
    for name, value in values.items():
        along = 0 if name in ("x", "task") else -1
        np.testing.assert_array_equal(part[name], np.take(value, index, axis=along))


def test_design_of_several_linear_predictors(seven) -> None:
    """Intercepts are counted by predictor, centred at the shares of the categories; gaps are kept for the prior."""
    design = Design.of(seven)
    t, grade = seven.index("colour"), seven.index("grade")
    assert design.n_predictors == (1, 1, 1, 1, 3, 1, 1) and design.intercept_loc.shape == (9,)
    counts = np.bincount(seven.y[t].astype(int)) + 0.5
    np.testing.assert_allclose(np.diff(design.intercept_loc[t : t + 3]), np.diff(np.log(counts)))
    assert design.reference["ordinal"].shape == (1, len(seven.families[grade].labels) - 2)


@pytest.mark.parametrize("exposure", [2.0, np.array([1.0, 2.0, 3.0])], ids=["number", "array"])
def test_inputs_only(exposure, five, grouped) -> None:
    x = np.zeros((3, 3))
    for tasks in (five, grouped("poisson")):
        values = inputs_only(x[:, : len(tasks.inputs)], Design.of(tasks), exposure)
        assert "task" not in values and values["x"].dtype == np.float32
        assert np.all(values["mask/poisson"])
        np.testing.assert_allclose(values["exposure/poisson"][0], np.broadcast_to(exposure, 3))
