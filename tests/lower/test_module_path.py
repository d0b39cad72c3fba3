"""lower_modules: which layers of a user's module are swapped, and that the rest stays right."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastinfer.config import Config
from fastinfer.lower import lower_modules
from fastinfer.nn import Int8Conv1dDynamic, Int8Conv2dDynamic, Int8LinearDynamic, WeightOnly
from fastinfer.report import Report
from fastinfer.testing.compare import assert_equal, sqnr_db

DYNAMIC = Config(precision="int8-dynamic")


def seeded(make, *args, **kwargs):
    torch.manual_seed(4)
    return make(*args, **kwargs).eval()


def convert(model, config=DYNAMIC, **more):
    """Return (converted, rows by name); the model must stay as it was."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modules = {n: (m, type(m)) for n, m in model.named_modules()}
    report = Report(path="modules")
    converted = lower_modules(model, config, report, **more)
    for name, (module, kind) in modules.items():
        assert model.get_submodule(name) is module and type(module) is kind
    for name, value in model.state_dict().items():
        assert_equal(value, state[name])
    return converted, {row.name: row for row in report.layers}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.row = nn.Conv2d(3, 6, 3, padding="same"), nn.Conv1d(6, 4, 3)
        self.inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x):
        x = self.row(torch.relu(self.conv(x)).flatten(2))
        return self.inner(x.mean(2))


def test_plain_model():
    model = seeded(Plain)
    converted, rows = convert(model)
    assert type(converted) is Plain and converted is not model
    assert type(converted.conv) is Int8Conv2dDynamic and type(converted.row) is Int8Conv1dDynamic
    assert type(converted.inner[0]) is Int8LinearDynamic
    assert set(rows) == {"conv", "row", "inner.0", "inner.3"}
    assert {row.precision for row in rows.values()} == {"int8-dynamic"}
    x = torch.randn(4, 3, 8, 8)
    assert sqnr_db(model(x), converted(x)) > 25
    assert not converted.training and not converted.conv.training


def test_precisions_and_ignore():
    model = seeded(Plain)
    x = torch.randn(4, 3, 8, 8)
    for precision in ("int8-weight-only", "bf16", "fp32", "auto", "int8"):
        converted, rows = convert(model, Config(precision=precision))
        wanted = "int8-dynamic" if precision in ("auto", "int8") else precision
        assert {row.precision for row in rows.values()} == {wanted}
        assert sqnr_db(model(x), converted(x)) > 25
    converted, rows = convert(model, Config(precision="int8-weight-only", ignore=("inner.*",)))
    assert type(converted.inner[0]) is nn.Linear and type(converted.conv) is WeightOnly
    assert rows["inner.0"].reason == "named in ignore"


def test_keep_float_and_times():
    model = seeded(Plain)
    converted, rows = convert(model, keep_float={"conv": "slower"}, times={"row": (2.0, 1.0)})
    assert type(converted.conv) is nn.Conv2d
    assert (rows["conv"].precision, rows["conv"].reason) == ("fp32", "slower")
    assert (rows["row"].float_ms, rows["row"].fast_ms) == (2.0, 1.0)


def test_a_layer_alone():
    converted, rows = convert(seeded(nn.Linear, 5, 3))
    assert type(converted) is Int8LinearDynamic and len(rows) == 1


def test_shared_module_stays_shared():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second = self.first

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    model = seeded(Shared)
    converted, rows = convert(model)
    assert converted.first is converted.second and len(rows) == 1
    x = torch.randn(7, 6)
    assert sqnr_db(model(x), converted(x)) > 25


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        y, _ = self.attention(x, x, x)
        y, _ = self.lstm(y)
        return self.head(y)


def test_modules_that_read_inner_weights():
    model = seeded(Attention)
    converted, rows = convert(model)
    assert type(converted.attention.out_proj) is type(model.attention.out_proj)
    assert type(converted.lstm) is nn.LSTM and type(converted.head) is Int8LinearDynamic
    assert rows["attention"].precision == rows["lstm"].precision == "fp32"
    assert "inner weights" in rows["lstm"].reason
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        assert sqnr_db(model(x), converted(x)) > 25


@pytest.mark.parametrize("grad", [False, True])
def test_transformer_encoder(grad):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = seeded(nn.TransformerEncoder, layer, 2)
    converted, rows = convert(model)
    assert type(converted.layers[0].linear1) is Int8LinearDynamic
    assert sum(row.precision == "int8-dynamic" for row in rows.values()) == 4
    x = torch.randn(2, 5, 8)
    with torch.set_grad_enabled(grad):
        assert sqnr_db(model(x), converted(x)) > 25


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_what_has_a_meaning_of_its_own_stays():
    model = seeded(nn.ModuleDict, {
        "own": Own(4, 4),
        "hooked": nn.Linear(4, 4),
        "prehooked": nn.Linear(4, 4),
        "patched": nn.Linear(4, 4),
        "reflect": nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        "same": nn.Conv2d(2, 2, 2, padding="same"),
        "transposed": nn.ConvTranspose2d(2, 2, 2),
        "conv3d": nn.Conv3d(2, 2, 2),
        "norm": nn.BatchNorm2d(2),
        "lazy": nn.LazyLinear(3),
        "float16": nn.Linear(4, 4).half(),
        "plain": nn.Linear(4, 4),
        "normed": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    })  # fmt: skip
    model["hooked"].register_forward_hook(lambda module, args, out: out + 1)
    model["prehooked"].register_forward_pre_hook(lambda module, args: None)
    forward = model["patched"].forward
    model["patched"].forward = lambda x: forward(x) + 1
    report = Report(path="modules")
    converted = lower_modules(model, DYNAMIC, report)
    rows = {row.name: row for row in report.layers}
    swapped = {name for name, row in rows.items() if row.precision != "fp32"}
    assert swapped == {"plain"}
    for name in set(model) - swapped:
        assert type(converted[name]) is type(model[name]), name
        assert name == "norm" or rows[name].reason, name
    x = torch.randn(3, 4)
    for name in ("own", "hooked", "prehooked", "patched"):
        assert_equal(converted[name](x), model[name](x))


def test_parametrized_layer_still_answers():
    model = seeded(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))))
    converted, _ = convert(model)
    x = torch.randn(3, 4)
    assert sqnr_db(model(x), converted(x)) > 25


def test_training_mode_and_copies():
    model = seeded(Plain)
    converted, _ = convert(model)
    again = copy.deepcopy(converted)
    x = torch.randn(2, 3, 8, 8)
    assert_equal(again(x), converted(x))
    other = lower_modules(seeded(Plain), DYNAMIC, Report(path="modules"))
    other.load_state_dict(converted.state_dict())
    assert_equal(other(x), converted(x))
