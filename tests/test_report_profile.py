"""report(fast).profile: names, figures that add up, the same answers, and what it refuses."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading

import pytest
import torch
from small_models import Residual
from torch import nn

import fastinfer
from fastinfer import runtime
from fastinfer.report import Report
from fastinfer.report_profile import Profile, ProfiledRegion, ProfiledStep

SHAPE = (2, 3, 64, 48)


@pytest.fixture(scope="module")
def fast():
    torch.manual_seed(0)
    x = torch.randn(SHAPE)
    return fastinfer.convert(Residual().eval(), x, config="int8", calibration=[x])


@pytest.fixture
def x():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def test_steps_have_the_names_and_shapes_of_the_model(fast, x, threads):
    threads(1)
    profile = fastinfer.report(fast).profile(x, runs=3)
    (region,) = profile.regions
    layers = [step for step in region.steps if step.multiply_adds]
    assert [(s.name, s.kind) for s in layers] == [
        ("stem", "int8_conv2d"),
        ("blocks.0.conv", "int8_conv2d"),
        ("blocks.1.conv", "int8_conv2d"),
        ("head", "int8_linear"),
    ]
    stem, block, _, head = layers
    assert (stem.inputs, stem.output) == ((SHAPE,), (2, 16, 32, 24))
    assert block.inputs == ((2, 16, 32, 24),) * 2, "a residual is read, too"
    assert head.multiply_adds == 2 * 16 * 10 and head.output == (2, 10)
    assert block.multiply_adds == 2 * 32 * 24 * 16 * 16 * 9
    assert block.bytes_written == 2 * 16 * 32 * 24
    assert block.bytes_read > 2 * block.bytes_written + 16 * 16 * 9
    assert len(region.steps) == fastinfer.report(fast).regions[0].steps


def test_figures_add_up(fast, x, threads):
    threads(1)
    profile = fastinfer.report(fast).profile((x,), runs=5)
    (region,) = profile.regions
    assert (profile.runs, profile.threads, profile.isa) == (5, 1, runtime.isa())
    assert (region.calls, region.slices, region.part) == (1, 1, "")
    assert 0 < region.us < profile.wall_us
    assert 0 < profile.outside_us < profile.wall_us
    assert 0 < region.engine_us < region.us
    for step in region.steps:
        assert 0 < step.kernel_us <= step.us < region.us
        assert 0 < profile.share(step, region) < 1
        assert step.gb_per_s > 0
        assert (profile.peak_share(step) is None) == (step.multiply_adds == 0)
    conv = max(region.steps, key=lambda step: step.multiply_adds)
    assert profile.peak_share(conv) == pytest.approx(
        2 * conv.multiply_adds / conv.us / 1e3 / profile.peak_gops
    )


def test_text_and_dict(fast, x):
    profile = fastinfer.report(fast).profile({"x": x}, runs=2)
    lines = str(profile).splitlines()
    assert lines[0].startswith("fastinfer profile: ") and "median of 2" in lines[0]
    assert sum(line.startswith("blocks.0.conv") for line in lines) == 1
    (row,) = [line for line in lines if line.startswith("stem")]
    assert "2x3x64x48 -> 2x16x32x24" in row
    assert max(map(len, lines)) <= 140
    data = json.loads(json.dumps(profile.to_dict()))
    assert data["wall_us"] == profile.wall_us
    assert len(data["regions"][0]["steps"]) == len(profile.regions[0].steps)


def test_text_of_figures_known_in_advance():
    step = ProfiledStep("conv", "int8_conv2d", ((1, 2, 3, 4),), (1, 8), 10.0, 9.0, 10**6, 1536, 512)
    region = ProfiledRegion("backbone", 3.0, 4, 10.5, 1.5, 2 << 20, 1 << 20, (step,))
    text = str(Profile(50.0, 18.5, 20, 2, "avx2", 400.0, (region,)))
    for part in (
        "0.050 ms a call, median of 20, 2 threads, avx2",
        "regions  0.032 ms (63.0 %)",
        "outside  0.018 ms (37.0 %)",
        "400 GOPS",
        "Region 1 in backbone: 10.5 us; 3 calls; 4 slices of the batch; 1 steps, 1.50 us each",
        "arena 2.00 MiB, at least 1.00 MiB",
    ):
        assert part in text, text
    row = " ".join(text.splitlines()[-1].split())
    assert row == "conv conv2d 1x2x3x4 -> 1x8 10.0 60.0 50 2.0 0.2"


def test_answers_are_the_same_bits(fast, x):
    wanted = fast(x)
    profiled = []
    handle = fast.register_forward_hook(lambda module, args, out: profiled.append(out))
    fastinfer.report(fast).profile(x, runs=2)
    handle.remove()
    assert len(profiled) >= 2
    for answer in [*profiled, fast(x)]:
        assert torch.equal(answer["logits"], wanted["logits"])
        assert torch.equal(answer["maps"][0], wanted["maps"][0])


def test_other_callers_are_not_in_it(fast, x):
    """Calls on another thread, of the same model, on inputs of another size."""
    stop = threading.Event()
    small = torch.randn(2, 3, 32, 32)

    def call():
        while not stop.is_set():
            fast(small)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        profile = fastinfer.report(fast).profile(x, runs=10)
    finally:
        stop.set()
        caller.join()
    (region,) = profile.regions
    assert region.calls == 1
    assert region.steps[0].inputs == (SHAPE,)


def test_a_large_batch_is_in_slices(fast, threads):
    threads(2)
    x = torch.randn(64, 3, 128, 96)
    (region,) = fastinfer.report(fast).profile(x, runs=2).regions
    assert region.slices > 1 and region.steps[0].inputs[0][0] == 64
    assert region.arena_bytes >= region.arena_lower_bound > 0


class Twice(nn.Module):
    """A part that is called for every scale, in code that no graph can hold."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)
        )

    def forward(self, scales):
        if float(scales[0].sum()) == 0.125:
            return []
        return [self.part(x) for x in scales]


def test_parts_have_their_names_and_calls():
    torch.manual_seed(0)
    scales = [torch.randn(1, 8, size, size) for size in (32, 16, 16)]
    fast = fastinfer.convert(Twice().eval(), (scales,), config="int8", calibration=[(scales,)])
    profile = fastinfer.report(fast).profile((scales,), runs=3)
    assert [(r.part, r.calls) for r in profile.regions] == [("part", 1.0), ("part", 2.0)]
    large, small = profile.regions
    names = [step.name for step in small.steps if step.multiply_adds]
    assert names == ["part.0", "part.2"]
    assert [s.name for s in small.steps if s.kind == "int8_max_pool2d"] == ["part.1"]
    assert large.steps[-1].output == (1, 8, 16, 16) and small.steps[-1].output == (1, 8, 8, 8)


@pytest.mark.parametrize("runs", [0, -3])
def test_too_few_runs(fast, x, runs):
    with pytest.raises(ValueError, match=f"profile: runs: expected .* >= 1, got {runs}"):
        fastinfer.report(fast).profile(x, runs=runs)


@pytest.mark.parametrize("runs", [2.0, "3", True, None])
def test_runs_of_another_type(fast, x, runs):
    with pytest.raises(TypeError, match="profile: runs: expected an integer, got"):
        fastinfer.report(fast).profile(x, runs=runs)


@pytest.mark.parametrize(
    "inputs",
    [torch.zeros(2, 5, 64, 48), torch.zeros(2, 3, 64, 48).double(), (), {"y": torch.zeros(1)}],
    ids=["channels", "dtype", "none", "keyword"],
)
def test_inputs_that_do_not_fit(fast, inputs):
    with pytest.raises(ValueError, match="profile: inputs: expected what the model takes, got"):
        fastinfer.report(fast).profile(inputs)
    assert fastinfer.report(fast).profile(torch.randn(SHAPE), runs=1).regions


def test_a_call_that_the_float_model_answers(fast, x):
    with pytest.raises(ValueError, match=r"a call that a region answers, got tensors \[\[2, 3, 64"):
        fastinfer.report(fast).profile((x, 0.5))


def test_a_model_without_regions(x):
    fast = fastinfer.convert(Residual().eval(), x, config="fp32")
    with pytest.raises(ValueError, match=r"a model with regions .*, got one without: no two int8"):
        fastinfer.report(fast).profile(x)
    fast = fastinfer.convert(Residual().eval(), config="int8-dynamic")
    with pytest.raises(ValueError, match="got one without: it was converted on the path 'modules'"):
        fastinfer.report(fast).profile(x)


def test_a_report_without_its_model(fast, x, tmp_path):
    report = fastinfer.report(fast)
    report.save(tmp_path / "report.json")
    with pytest.raises(ValueError, match="the report of a model in memory"):
        Report.load(tmp_path / "report.json").profile(x)
    copied = copy.deepcopy(fast)
    report = fastinfer.report(copied)
    assert report.profile(x, runs=1).regions
    del copied
    gc.collect()
    with pytest.raises(ValueError, match="the report of a model in memory"):
        report.profile(x)


def test_a_report_is_copied_and_pickled_without_the_model(fast):
    report = fastinfer.report(fast)
    for other in (copy.deepcopy(report), pickle.loads(pickle.dumps(report))):
        assert other == report and other._model is None
