"""torch.export and torch.jit.trace see the regions; what they save runs where fastinfer is."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings

import pytest
import torch
from traced_ops import DYNAMIC, REGION, assert_same, converted, gated, ops_of, swapped

import fastinfer
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.cases_region import region_cases

BATCH = torch.export.Dim("batch")
#: torch.jit is deprecated, and says so at each call.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def export(fast, x, strict=False, sizes=None):
    name = next(iter(inspect.signature(fast.forward).parameters))
    return torch.export.export(
        fast, (x,), strict=strict, dynamic_shapes={name: sizes or {0: BATCH}}
    )


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_export(name, strict):
    fast, x, _ = converted(name)
    program = export(fast, x, strict)
    assert ops_of(program.graph_module) == [REGION]
    # Weights under their own names, each once.
    names = {*program.constants, *program.state_dict}
    assert names == {name for name, _ in fast.named_buffers()}
    module = program.module()
    for value in (x, x[:2], x[:3]):
        assert_same(module(value), fast(value))


def test_export_with_free_sizes():
    fast, x, other = converted("residual")
    free = torch.export.Dim.AUTO
    program = export(fast, x, sizes=dict.fromkeys((0, 2, 3), free))
    assert ops_of(program.graph_module) == [REGION]
    assert_same(program.module()(other), fast(other))


def test_export_outside_the_graph():
    fast, x, _ = converted("residual")
    with pytest.raises(ValueError, match=r"expected inputs 'x' float32 \[\*, 3, .*float model"):
        torch.export.export(fast, (x, 2.0))
    with pytest.raises(TypeError, match="got float64"):
        torch.export.export(fast, (x.double(),))


def test_export_of_the_module_path():
    fast, x = swapped()
    program = export(fast, x)
    assert set(ops_of(program.graph_module)) == {DYNAMIC}
    assert_same(program.module()(x[:3]), fast(x[:3]))


def test_export_of_a_converted_submodule():
    fast, x = gated()
    body = fast.model.body
    program = export(body, x)
    assert ops_of(program.graph_module) == [REGION]
    assert_same(program.module()(x), body(x))


@pytest.mark.parametrize("name", ["separable", "mlp"])
def test_trace(name):
    fast, x, other = converted(name)
    traced = torch.jit.trace(fast, x)
    kinds = [n.kind() for n in traced.inlined_graph.nodes() if "fastinfer" in n.kind()]
    assert kinds == ["fastinfer::int8_region"]
    for value in (x, x[:1], other):
        assert_same(traced(value), fast(value))


def test_trace_outside_the_graph():
    fast, x, _ = converted("mlp")
    with pytest.raises(ValueError, match=r"got \[4, 5\], which only the float model takes"):
        torch.jit.trace(fast, x[:, :5])


def test_trace_warns_of_nothing():
    fast, x, _ = converted("mlp")
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        torch.jit.trace(fast, x)


ELSEWHERE = """
import sys, torch, fastinfer
folder = sys.argv[1]
x, wanted = torch.load(folder + "/values.pt")
for run in (torch.export.load(folder + "/fast.pt2").module(), torch.jit.load(folder + "/fast.ts")):
    assert torch.equal(run(x), wanted)
    assert torch.equal(run(x[:3]), wanted[:3])
print(fastinfer.__name__)
"""


def test_saved_in_a_fresh_process(tmp_path):
    fast, x, _ = converted("separable")
    torch.export.save(export(fast, x), tmp_path / "fast.pt2")
    torch.jit.save(torch.jit.trace(fast, x), tmp_path / "fast.ts")
    torch.save((x, fast(x)), tmp_path / "values.pt")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == f"{fastinfer.__name__}\n", done.stderr


class Region(torch.nn.Module):
    """int8_region alone."""

    def __init__(self, packed, program):
        super().__init__()
        self.packed, self.program = packed, program

    def forward(self, *inputs):
        return torch.ops.fastinfer.int8_region(list(inputs), self.packed, self.program)


@pytest.mark.parametrize("label", ["image_2x13", "between_2x14", "float_2x6_c20", "rows_5_k64"])
def test_every_kind_of_step_with_a_symbolic_batch(label):
    case = next(c for c in region_cases() if c.label.startswith(label))
    inputs, packed, program = case.build()
    free = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
    exported = torch.export.export(Region(packed, program), tuple(inputs), dynamic_shapes=(free,))
    more = [torch.cat([x, x, x]) for x in inputs]
    wanted = int8_region_ref(more, packed, program)
    assert_same(exported.module()(*more), wanted)
