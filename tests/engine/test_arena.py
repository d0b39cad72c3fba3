"""Memory of a call: near the most that is alive at one step, and no more than that in fact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from fastinfer import runtime
from fastinfer.compress.quantize import quantize
from fastinfer.config import resolve_config
from fastinfer.graph.capture import capture
from fastinfer.lower import lower
from fastinfer.lower.regions import with_regions
from fastinfer.passes import INT8_PASSES, run_passes
from fastinfer.paths.graph import prepare
from fastinfer.report import Report

#: The arena by the most bytes alive at one step, at worst.
MOST = 1.3
SIZE = 64
NETWORKS = {
    "mobilenet_v2": lambda models: models.mobilenet_v2(),
    "resnet50": lambda models: models.resnet50(),
    # Two of its four blocks: the whole, and GoogLeNet, are in tests/models/test_copies.py.
    "densenet121": lambda models: models.DenseNet(32, (6, 12)),
    "shufflenet_v2_x1_0": lambda models: models.shufflenet_v2_x1_0(),
}


def int8_graph(name):
    """Return a network with random weights, lowered as `convert` does, nothing timed or judged."""
    torch.manual_seed(0)
    model = NETWORKS[name](torchvision.models).eval()
    x = torch.randn(2, 3, SIZE, SIZE)
    config = resolve_config("int8")
    prepared = prepare(model, capture(model, (x,)), ((x,), {}), config, Report())
    prepared.calibrator.run([x])
    program = quantize(prepared.program, prepared.calibrator, config)
    lowered = replace(program, graph_module=lower(program))
    run_passes(lowered, INT8_PASSES)
    with torch.inference_mode():
        fused, regions, _ = with_regions(lowered.graph_module, prepared.inputs)
    assert regions
    return fused


@pytest.fixture(scope="module")
def graphs():
    made = {}

    def graph(name):
        if name not in made:
            made[name] = int8_graph(name)
        return made[name]

    return graph


@pytest.mark.parametrize("shape", [(1, 3, SIZE, SIZE), (3, 3, 224, 160)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_arenas_are_near_what_is_alive(name, shape, graphs, threads):
    threads(1)
    with torch.inference_mode(), runtime.recording() as calls:
        graphs(name)(torch.zeros(shape))
    assert calls
    for call in calls:
        assert 0 < call.arena_lower_bound <= call.arena_bytes <= MOST * call.arena_lower_bound


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_a_call_takes_no_more_memory_than_its_arena(graphs, threads):
    """One image, so the batch is not sliced; the other megabyte is for threads and the plan."""
    threads(2)
    graph = graphs("mobilenet_v2")
    x = torch.zeros(1, 3, 768, 768)
    with torch.inference_mode():
        graph(torch.zeros(1, 3, SIZE, SIZE))
        before = resident_bytes()
        with runtime.recording() as calls:
            graph(x)
        first = resident_bytes()
        for _ in range(5):
            graph(x)
        last = resident_bytes()
    arena = sum(call.arena_bytes for call in calls)
    assert arena > 16 << 20, "else the megabyte would hide a second one"
    assert first - before <= arena + (1 << 20)
    assert last - first <= 1 << 20
