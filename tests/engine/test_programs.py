"""Programs as text, and texts that are none."""

from __future__ import annotations

import pytest
import torch

from fastinfer.testing.cases_islands import island_programs
from fastinfer.testing.cases_region import region_cases
from fastinfer.testing.cases_text import text_programs
from fastinfer.types.region import KINDS, MAGIC, VERSION, Region, Step, renumbered

CASES = [*region_cases(), *island_programs(), *text_programs()]
IMAGE = next(c for c in CASES if c.label.startswith("image"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_text_is_exact(case):
    text = case.build()[2]
    region = Region.from_text(text)
    assert region.to_text() == text
    assert Region.from_text(region.to_text()) == region


def test_cases_have_every_kind():
    found = {step.kind for case in CASES for step in Region.from_text(case.build()[2]).steps}
    assert found == set(KINDS)


def test_renumbered():
    steps = (Step("dequantize", 9, (4,), (0.5, 3)), Step("quantize", 2, (9,), (0.5, 3)))
    region = renumbered(steps, [4], [2, 9])
    assert region.n_inputs == 1 and region.n_values == 3 and region.outputs == (2, 1)
    assert [s.reads for s in region.steps] == [(0,), (1,)]


def run(text, inputs=None, packed=None):
    own_inputs, own_packed, _ = IMAGE.build()
    return torch.ops.fastinfer.int8_region(
        own_inputs if inputs is None else inputs, own_packed if packed is None else packed, text
    )


TEXT = IMAGE.build()[2]
WRONG = {
    "empty": "",
    "other magic": TEXT.replace(MAGIC, "nonsense"),
    "newer version": TEXT.replace(f"{MAGIC} {VERSION}", f"{MAGIC} {VERSION + 1}"),
    "ends early": TEXT[: len(TEXT) // 2].rsplit(" ", 1)[0],
    "words left over": TEXT + " 7",
    "no number": TEXT.replace(" 11 ", " eleven ", 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_text(name):
    with pytest.raises(RuntimeError, match="int8_region: program"):
        run(WRONG[name])


def test_wrong_arguments():
    x = IMAGE.build()[0][0]
    with pytest.raises(RuntimeError, match="expected 1 inputs, got 2"):
        run(TEXT, inputs=[x, x])
    with pytest.raises(RuntimeError, match="expected x uint8 \\[N, 3, H, W\\], got \\[1, 4"):
        run(TEXT, inputs=[torch.zeros(1, 4, 9, 9)])
    with pytest.raises(RuntimeError, match="smaller than the kernel"):
        run(TEXT, inputs=[torch.zeros(1, 3, 0, 9)])
    with pytest.raises(RuntimeError, match="no weight"):
        run(TEXT, packed=[])
    with pytest.raises(RuntimeError, match="not a packed weight"):
        run(TEXT, packed=[torch.zeros(9, dtype=torch.uint8)] * 6)
    with pytest.raises(RuntimeError, match="expected float32 or uint8"):
        run(TEXT, inputs=[x.double()])


def test_wrong_step():
    with pytest.raises(ValueError, match="expected kind"):
        Step("int8_matmul", 0, ())
    with pytest.raises(ValueError, match="quantize: expected 2 arguments"):
        Step("quantize", 1, (0,), (0.5,))
