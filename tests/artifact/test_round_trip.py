"""A loaded model is the saved one: bits, state, report, and the artifact it makes itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_models import CASES, leaves
from torch import nn

import fastinfer
from fastinfer.nn import Int8Conv2d, PackedModule, repack
from fastinfer.nn.converted_module import ModulePath

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ("int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32")
GRAPHS = [name for name in CASES if name != "branching"]


def assert_same(wanted, got):
    (wanted, wanted_spec), (got, got_spec) = leaves(wanted), leaves(got)
    assert wanted_spec == got_spec
    for w, g in zip(wanted, got, strict=True):
        assert w.dtype == g.dtype and w.stride() == g.stride() and torch.equal(w, g)


def contents(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {f.name if path.is_dir() else "": f.read_bytes() for f in files}


@pytest.mark.parametrize("suffix", ["", ".fastinfer"])
@pytest.mark.parametrize("config", PRESETS)
@pytest.mark.parametrize("name", GRAPHS)
def test_round_trip(converted, tmp_path, name, config, suffix):
    fast, x, other = converted(name, config)
    path, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    fastinfer.save(fast, path)
    assert path.is_dir() == (suffix == "")
    loaded = fastinfer.load(path, map_location="cpu")
    sizes = (x,) if name == "recurrent" else (x, other)  # an LSTM's length is not free
    for value in sizes:
        assert_same(fast(value), loaded(value))
    state, loaded_state = fast.state_dict(), loaded.state_dict()
    assert set(state) == set(loaded_state)
    assert all(torch.equal(value, loaded_state[key]) for key, value in state.items())
    assert str(fastinfer.report(loaded)) == str(fastinfer.report(fast))
    assert fastinfer.report(loaded) == fastinfer.report(fast)
    assert bool(loaded._regions) == bool(fast._regions)
    assert list(inspect.signature(loaded.forward).parameters) == list(
        inspect.signature(fast.forward).parameters
    )
    fastinfer.save(loaded, again)
    assert contents(path) == contents(again)


def test_regions_and_float_layers_were_among_them(converted):
    assert converted("residual")[0]._regions
    assert any(isinstance(m, Int8Conv2d) for m in converted("residual")[0].modules())
    assert not any(isinstance(m, PackedModule) for m in converted("residual", "fp32")[0].modules())


@pytest.mark.parametrize("isa", fastinfer.supported_isas())
def test_any_isa_reads_it(converted, tmp_path, every_isa, isa):
    fast, x, _ = converted("residual")
    before = fastinfer.isa()
    wanted = fast(x)
    fastinfer.save(fast, tmp_path / "m")
    try:
        fastinfer.set_isa(isa)
        loaded = fastinfer.load(tmp_path / "m")
        assert_same(wanted, loaded(x))
        fastinfer.save(loaded, tmp_path / "again")
        assert contents(tmp_path / "m") == contents(tmp_path / "again")
    finally:
        fastinfer.set_isa(before)
    assert repack(loaded) > 0
    assert_same(wanted, loaded(x))


def test_tensors_are_the_state_dict(converted, tmp_path):
    """Any reader of safetensors gets the canonical weights by the names of the state_dict."""
    fast, *_ = converted("separable")
    fastinfer.save(fast, tmp_path / "m")
    (file,) = (tmp_path / "m").glob("*.safetensors")
    stored = safetensors.torch.load_file(file)
    state = fast.state_dict()
    assert set(stored) == set(state)
    assert all(torch.equal(stored[key], value) for key, value in state.items())


def test_calls_it_does_not_hold_for(converted, tmp_path):
    fast, x, _ = converted("residual")
    fastinfer.save(fast, tmp_path / "m")
    loaded = fastinfer.load(tmp_path / "m")
    assert_same(fast(x, scale=1.0), loaded(x, scale=1.0))
    with pytest.raises(ValueError, match=r"scale=1.0, got .* no float model .* convert"):
        loaded(x, 2.0)
    with pytest.raises(ValueError, match=r"\[\*, 3, \*, \*\], .*got \[2, 4, 16, 16\].*no float"):
        loaded(torch.zeros(2, 4, 16, 16))
    with pytest.raises(TypeError, match="expected float32"):
        loaded(x.double())


class Joined(nn.Module):
    """Several outputs in an ordered dict, a cat, two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.c = nn.Conv2d(16, 4, 1)

    def forward(self, x, pair):
        y = torch.cat([torch.relu(self.a(x)), torch.relu(self.b(pair["other"]))], 1)
        return OrderedDict(out=self.c(y), both=(y, [y.mean([2, 3])]))


def test_structures(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    fast = fastinfer.convert(Joined().eval(), (x, {"other": x + 1}), config="int8")
    fastinfer.save(fast, tmp_path / "m.fastinfer")
    loaded = fastinfer.load(tmp_path / "m.fastinfer")
    for value in (x, torch.randn(5, 3, 6, 10)):
        got = loaded(value, {"other": value})
        assert type(got) is OrderedDict
        assert_same(fast(value, {"other": value}), got)


@pytest.mark.parametrize("config", ["int8", "int8-weight-only", "bf16", "fp32"])
def test_sequential_without_a_graph(tmp_path, config):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(True)),
        nn.MaxPool2d(2), nn.Upsample(scale_factor=2.0), nn.Conv2d(8, 8, 3, groups=8), nn.GELU(),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 4, bias=False),
    ).eval()  # fmt: skip
    fast = fastinfer.convert(layers, config=config)
    assert isinstance(fast, ModulePath)
    fastinfer.save(fast, tmp_path / "m")
    loaded = fastinfer.load(tmp_path / "m")
    x = torch.randn(2, 3, 16, 16)
    assert_same(fast(x), loaded(x))
    assert not loaded.training and fastinfer.report(loaded).path == "modules"
    fastinfer.save(loaded, tmp_path / "again")
    assert contents(tmp_path / "m") == contents(tmp_path / "again")


def test_kept_original(tmp_path):
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).eval()
    fast = fastinfer.convert(layers, torch.randn(1, 4), config="auto")
    fastinfer.save(fast, tmp_path / "m")
    x = torch.randn(3, 4)
    assert_same(fast(x), fastinfer.load(tmp_path / "m")(x))


def test_channels_last_weights_keep_their_order(tmp_path):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU()).to(memory_format=torch.channels_last)
    fast = fastinfer.convert(layers.eval(), torch.randn(2, 8, 9, 9), config="fp32")
    fastinfer.save(fast, tmp_path / "m")
    loaded = fastinfer.load(tmp_path / "m")
    for (name, p), (other, q) in zip(
        fast.named_parameters(), loaded.named_parameters(), strict=True
    ):
        assert name == other and p.stride() == q.stride() and torch.equal(p, q)


def test_loading_traces_nothing(converted, tmp_path):
    """A fresh process imports neither torchvision nor the code of the model to load it."""
    fast, x, _ = converted("residual")
    fastinfer.save(fast, tmp_path / "m")
    torch.save((x, fast(x)["logits"]), tmp_path / "answer")
    script = f"""
import sys, torch, fastinfer
torch.set_num_threads(1)
def no_export(*args, **kwargs): raise AssertionError("torch.export ran")
torch.export.export = no_export
fast = fastinfer.load({str(tmp_path / "m")!r})
x, wanted = torch.load({str(tmp_path / "answer")!r})
assert torch.equal(fast(x)["logits"], wanted)
assert not {{"torchvision", "small_models", "pickle5"}} & set(sys.modules)
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr
