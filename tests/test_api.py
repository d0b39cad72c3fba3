"""convert end to end on small models: what comes back answers every call the model answers."""

from __future__ import annotations

import copy
import inspect
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastinfer
from fastinfer.nn.converted_module import ConvertedModule, ModulePath


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x
        return self.act(y)


class Residual(nn.Module):
    """conv-bn-add-relu, an option, and a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, 10)
        self.register_buffer("offset", torch.randn(10))

    def forward(self, x, scale: float = 1.0):
        y = self.blocks(F.relu(self.stem(x)))
        z = self.drop(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return {"logits": self.head(z) * scale + self.offset, "maps": [y]}


class Separable(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 16, 1),
            nn.SiLU(),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.body(x).mean([2, 3]))


class Shuffled(nn.Module):
    """Channels split, joined and shuffled between int8 layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a, b = F.relu(self.first(x)).chunk(2, 1)
        y = torch.cat([a, F.relu(self.branch(b))], 1)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.last(y)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x):
        return self.layer(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        y, (h, c) = self.rnn(x)
        return self.head(y), h, c


class Tokens(nn.Module):
    """Integer inputs, and a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, mask=None):
        y = torch.tanh(self.mix(self.embed(ids)))
        return self.head(y if mask is None else y * mask.unsqueeze(-1))


class Branching(nn.Module):
    """Control flow on values: no graph."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else self.b(x)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(F.relu(self.layer(x)))


def image(batch=2, size=16):
    return torch.randn(batch, 3, size, size)


CASES = {
    "residual": (Residual, image, lambda: image(5, 24)),
    "separable": (Separable, image, lambda: image(3, 20)),
    "shuffled": (Shuffled, image, lambda: image(3, 20)),
    "mlp": (
        lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)),
        lambda: torch.randn(1, 8),
        lambda: torch.randn(7, 8),
    ),
    "attention": (Attention, lambda: torch.randn(2, 5, 16), lambda: torch.randn(3, 9, 16)),
    "recurrent": (Recurrent, lambda: torch.randn(2, 5, 8), lambda: torch.randn(3, 4, 8)),
    "tokens": (
        Tokens,
        lambda: torch.randint(50, (2, 6)),
        lambda: torch.randint(50, (3, 4)),
    ),
    "branching": (Branching, lambda: torch.randn(2, 8), lambda: torch.randn(3, 8)),
    "shared": (Shared, lambda: torch.randn(2, 8), lambda: torch.randn(3, 8)),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 4, 1)),
        lambda: torch.randn(2, 4, 12),
        lambda: torch.randn(3, 4, 9),
    ),
}
#: Worst SQNR in dB of an output on data like the example, whole int8.
FLOOR_DB = 12.0


def make(name):
    torch.manual_seed(0)
    build, example, other = CASES[name]
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, example(), other()


def leaves(value):
    return torch.utils._pytree.tree_flatten(value)


def sqnr_db(wanted, got):
    error = (wanted - got).pow(2).mean()
    return 10 * torch.log10(wanted.pow(2).mean() / error.clamp_min(1e-20)).item()


def assert_alike(wanted, got, floor=FLOOR_DB):
    (wanted, wanted_spec), (got, got_spec) = leaves(wanted), leaves(got)
    assert wanted_spec == got_spec
    for w, g in zip(wanted, got, strict=True):
        assert w.shape == g.shape and w.dtype == g.dtype
        assert w.is_contiguous() == g.is_contiguous()
        assert w.numel() == 0 or sqnr_db(w, g) > floor


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("config", ["int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32"])
@pytest.mark.parametrize("name", CASES)
def test_every_model_and_precision(name, config):
    model, x, other = make(name)
    before = copy.deepcopy(model.state_dict())
    calibration = [x, other] if config == "int8" else None
    fast = fastinfer.convert(model, x, config=config, calibration=calibration)
    report = fastinfer.report(fast)
    assert report.path == ("modules" if name == "branching" else "graph"), report.notes
    floor = {"fp32": 80.0}.get(config, FLOOR_DB)
    assert_alike(model(x), fast(x), floor)
    assert_alike(model(other), fast(other), floor)
    assert_alike(model(other[:1]), fast(other[:1]), floor)
    if config == "int8" and name != "recurrent":
        assert any(row.precision.startswith("int8") for row in report.layers)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert str(report)


@pytest.mark.parametrize("name", CASES)
def test_without_example(name):
    model, x, other = make(name)
    fast = fastinfer.convert(model)
    assert isinstance(fast, ModulePath)
    assert_alike(model(x), fast(x))
    assert_alike(model(other), fast(other))


def test_views_of_a_convolution_without_a_graph():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

        def forward(self, x):
            return self.head(self.conv(x).view(x.shape[0], -1))

    model, x = Flat().eval(), image(2, 8)
    assert_alike(model(x), fastinfer.convert(model, config="int8")(x))
    assert_alike(model(x), fastinfer.convert(model, x, config="int8")(x))


@pytest.mark.parametrize("name", ["residual", "mlp", "attention"])
def test_auto_is_not_slower(name):
    model, x, _ = make(name)
    fast = fastinfer.convert(model, x)
    report = fastinfer.report(fast)
    assert report.fast_ms <= report.float_ms * 1.05
    assert_alike(model(x), fast(x), 18.0)


@pytest.fixture(scope="module")
def residual():
    torch.set_num_threads(1)
    model, x, other = make("residual")
    with torch.no_grad():
        return model, fastinfer.convert(model, x, config="int8"), other


def test_layers_carry_the_models_names(residual):
    rows = {row.name: row.precision for row in fastinfer.report(residual[1]).layers}
    assert rows == dict.fromkeys(("stem", "blocks.0.conv", "blocks.1.conv", "head"), "int8")


def test_calls(residual):
    model, fast, x = residual
    wanted = fast(x)["logits"]
    assert torch.equal(fast(x=x)["logits"], wanted)
    assert torch.equal(fast(x, scale=1.0)["logits"], wanted)
    # An option the graph does not hold for is answered by the float model.
    assert torch.equal(fast(x, 2.0)["logits"], model(x, 2.0)["logits"])
    assert inspect.signature(fast.forward) == inspect.signature(model.forward)


@pytest.mark.parametrize("batch", [0, 1, 2, 7])
def test_batches_are_independent(residual, batch):
    _, fast, x = residual
    many = x[:1].repeat(batch, 1, 1, 1)
    got = fast(many)
    assert got["logits"].shape == (batch, 10)
    if batch:
        assert torch.equal(got["logits"][-1:], fast(x[:1])["logits"])


def test_layouts(residual):
    _, fast, x = residual
    wanted = fast(x)["logits"]
    assert torch.equal(fast(x.to(memory_format=torch.channels_last))["logits"], wanted)
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(fast(turned)["logits"], wanted)
    wide = torch.randn(*x.shape[:3], 2 * x.shape[3])
    wide[..., ::2] = x
    assert torch.equal(fast(wide[..., ::2])["logits"], wanted)


def test_copies_and_state(residual):
    _, fast, x = residual
    wanted = fast(x)["logits"]
    copied = copy.deepcopy(fast)
    assert torch.equal(copied(x)["logits"], wanted)
    state = {k: v.clone() for k, v in fast.state_dict().items()}
    copied.load_state_dict(state)
    assert torch.equal(copied(x)["logits"], wanted)
    assert fastinfer.report(copied) is not None


def test_the_result_stands_alone():
    """Neither training the original nor its mode changes what the converted model answers."""
    model, x, other = make("residual")
    fast = fastinfer.convert(model, x, config=fastinfer.Config("int8", ignore=("head",)))
    wanted, optional = fast(other)["logits"].clone(), fast(other, 2.0)["logits"].clone()
    model.train()
    assert torch.equal(fast(other, 2.0)["logits"], optional)
    for parameter in model.parameters():
        parameter.add_(1.0)
    assert torch.equal(fast(other)["logits"], wanted)
    with pytest.raises(ValueError, match="changed after convert"):
        fast(other, 2.0)


def test_hooks_and_inference_mode(residual):
    _, fast, x = residual
    seen = []
    handle = fast.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        fast(x)
    handle.remove()
    assert len(seen) == 1


def test_threads_give_the_same_bits(residual):
    _, fast, x = residual
    wanted, same = fast(x)["logits"], []

    def run():
        same.extend(torch.equal(fast(x)["logits"], wanted) for _ in range(10))

    workers = [threading.Thread(target=run) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert same == [True] * 60


def test_compile(residual):
    _, fast, x = residual
    torch._dynamo.reset()
    compiled = torch.compile(fast, fullgraph=True, backend="eager")
    for value in (x, x[:1]):
        assert torch.equal(compiled(value)["logits"], fast(value)["logits"])


def test_export(residual):
    _, fast, x = residual
    dynamic = {"x": {0: torch.export.Dim.AUTO}, "scale": None}
    exported = torch.export.export(fast, (x, 1.0), dynamic_shapes=dynamic).module()
    assert torch.equal(exported(x[:3], 1.0)["logits"], fast(x[:3])["logits"])


def test_trace():
    model, x, _ = make("shuffled")
    fast = fastinfer.convert(model, x, config="int8")
    traced = torch.jit.trace(fast, (x,))
    assert torch.equal(traced(x), fast(x))


def test_train_mode_is_said_and_kept():
    model, x, _ = make("residual")
    model.train()
    fast = fastinfer.convert(model, x, config="int8")
    assert model.training and model.drop.training and not fast.training
    assert any("train mode" in note for note in fastinfer.report(fast).notes)


def test_hooked_model_keeps_its_hooks():
    model, x, _ = make("mlp")
    seen = []
    model[1].register_forward_hook(lambda *args: seen.append(1))
    fast = fastinfer.convert(model, x, config="int8")
    assert fastinfer.report(fast).path == "modules"
    seen.clear()
    fast(x)
    assert seen == [1]


@pytest.mark.parametrize(
    "form",
    [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: {"x": x}],
    ids=["tensor", "tuple", "list", "dict"],
)
def test_example_forms(form):
    model, x, _ = make("separable")
    fast = fastinfer.convert(model, form(x), config="int8")
    assert isinstance(fast, ConvertedModule)
    assert_alike(model(x), fast(x))


@pytest.mark.parametrize(
    "form",
    [
        lambda x: [x, x],
        lambda x: ((x, torch.arange(2)) for _ in range(2)),
        lambda x: [{"x": x}],
        lambda x: [[x, torch.zeros(2, dtype=torch.long)]],
    ],
    ids=["tensors", "labelled", "dicts", "lists"],
)
def test_calibration_forms(form):
    model, x, _ = make("separable")
    fast = fastinfer.convert(model, x, config="int8", calibration=form(x))
    assert not any("example only" in note for note in fastinfer.report(fast).notes)
    assert_alike(model(x), fast(x))


def test_calibration_of_other_sizes_is_skipped_and_said():
    model, x, other = make("recurrent")  # torch.export unrolls an LSTM: one length
    fast = fastinfer.convert(model, x, config="int8", calibration=[x, other])
    assert any("batch 1 was skipped" in note for note in fastinfer.report(fast).notes)
    assert_alike(model(other), fast(other), 80.0)


@pytest.mark.parametrize("ignore", ["stem", "blocks.*", nn.Linear])
def test_ignored_layers_stay_float(ignore):
    model, x, _ = make("residual")
    fast = fastinfer.convert(model, x, config=fastinfer.Config("int8", ignore=(ignore,)))
    kept = {row.name for row in fastinfer.report(fast).layers if row.precision == "fp32"}
    wanted = {
        "stem": {"stem"},
        "blocks.*": {"blocks.0.conv", "blocks.1.conv"},
        nn.Linear: {"head"},
    }
    assert kept == wanted[ignore]
    assert_alike(model(x), fast(x))


def test_evaluate_sends_layers_back_to_float():
    model, x, _ = make("separable")
    exact = model(x)

    def closeness(candidate):
        return -float((candidate(x) - exact).abs().max())

    strict = fastinfer.convert(model, x, config="int8", evaluate=closeness, max_drop=1e-6)
    loose = fastinfer.convert(model, x, config="int8", evaluate=closeness, max_drop=10.0)
    assert closeness(strict) >= -1e-6
    assert len(fastinfer.report(strict).fallbacks) > len(fastinfer.report(loose).fallbacks)


def test_target_is_reported():
    model, x, _ = make("mlp")
    fast = fastinfer.convert(model, x, config="int8", target_ms=1e-6)
    assert any("NOT reached" in note for note in fastinfer.report(fast).notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    model, x, _ = make("residual")
    model, x = model.to(dtype), x.to(dtype)
    fast = fastinfer.convert(model, x, config="int8")
    assert_alike(model(x), fast(x))
    with pytest.raises(TypeError, match="expected"):
        fast(x.float())


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_torchvision(name):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=10).eval()
    x = torch.randn(1, 3, 64, 64)
    fast = fastinfer.convert(model, x, config="int8", calibration=[torch.randn(4, 3, 64, 64)])
    report = fastinfer.report(fast)
    assert report.path == "graph" and report.passes["fold_batch_norm"] >= 20
    assert_alike(model(x), fast(x), 10.0)
    other = torch.randn(2, 3, 80, 96)
    assert_alike(model(other), fast(other), 10.0)
