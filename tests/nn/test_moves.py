"""What changes when a converted model goes to another device; the meta device stands for a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer import runtime
from fastinfer.nn import packed_module
from fastinfer.nn.device_arguments import put_on
from fastinfer.nn.float_fallback import FloatFallback
from fastinfer.nn.packed_module import check_target, device_after, prepack

META, FIRST = torch.device("meta"), torch.device("cuda:0")


class Positions(nn.Module):
    """Its graph makes a tensor, so it names a device."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean((2, 3))
        return self.fc(y + torch.arange(x.shape[0], device=x.device)[:, None])


@pytest.fixture(scope="module")
def converted():
    torch.manual_seed(0)
    return fastinfer.convert(Positions().eval(), torch.randn(2, 3, 8, 8), config="int8")


def devices_named(graph_module):
    found = []
    for node in graph_module.graph.nodes:
        values = [*node.args, *node.kwargs.values()]
        found += [value for value in values if isinstance(value, torch.device)]
    return found


def test_operators_name_the_new_device(converted):
    graph_module = copy.deepcopy(converted).lowered
    assert devices_named(graph_module) == [torch.device("cpu")]
    code = graph_module.code
    put_on(graph_module, torch.device("cpu"))
    assert graph_module.code is code
    put_on(graph_module, META)
    assert devices_named(graph_module) == [META] and "meta" in graph_module.code


def test_a_call_names_the_new_device(converted):
    moved = converted._call.on(FIRST)
    assert [i.device for i in moved.tensor_inputs] == [FIRST]
    assert moved.in_spec == converted._call.in_spec
    assert [i.device.type for i in converted._call.tensor_inputs] == ["cpu"]


def test_the_float_model_follows_at_its_first_call():
    model = nn.Linear(4, 3)
    fallback = FloatFallback(model)
    moved = fallback.on(META)
    assert moved(torch.ones(2, 4, device=META)).device == META
    assert fallback(torch.ones(2, 4)).device.type == "cpu"
    assert model.weight.device.type == "cpu"
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(RuntimeError, match="whose weights were changed"):
        moved(torch.ones(2, 4, device=META))


def test_a_whole_model_on_another_device(converted, monkeypatch):
    """All but the bytes of packed weights, of which a meta device has none."""
    monkeypatch.setattr(packed_module, "check_target", lambda name, device: None)
    monkeypatch.setattr(
        packed_module,
        "prepack",
        lambda folded, device=None: prepack(folded).to(device or "cpu"),
    )
    moved = copy.deepcopy(converted).to(META)
    assert moved.device == META and moved._device == META
    assert {p.device for p in [*moved.parameters(), *moved.buffers()]} == {META}
    assert devices_named(moved.lowered) == [META]
    assert moved._graph() is moved.lowered
    assert moved(torch.ones(5, 3, 8, 8, device=META)).shape == (5, 8)
    with pytest.raises(TypeError, match="on meta, got float32"):
        moved(torch.ones(5, 3, 8, 8))
    assert converted.device.type == "cpu"
    assert converted(torch.ones(5, 3, 8, 8)).shape == (5, 8)


def test_where_packed_weights_run(converted, monkeypatch):
    with pytest.raises(RuntimeError, match=r"cpu and cuda only, got .to\('meta'\)"):
        copy.deepcopy(converted).to(META)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(RuntimeError, match=r"Int8Linear: packed .* compute capability 7.0"):
        check_target("Int8Linear", FIRST)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    monkeypatch.setattr(runtime, "_C_cuda", object())
    check_target("Int8Linear", FIRST)
    monkeypatch.setattr(runtime, "_C_cuda", None)
    with pytest.raises(RuntimeError, match="_C_cuda is missing"):
        check_target("Int8Linear", FIRST)


def test_a_device_that_torch_has_not(converted):
    def refused(tensor):
        raise RuntimeError("No CUDA GPUs are available")

    with pytest.raises(RuntimeError, match=r"to: expected a device that torch has .* No CUDA"):
        device_after(refused, torch.device("cpu"))
    before = converted(torch.ones(2, 3, 8, 8))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="to: expected a device that torch has here"):
            converted.to("cuda")
    assert torch.equal(converted(torch.ones(2, 3, 8, 8)), before)
