"""capture: what becomes a graph, with which sizes, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from program_call import run
from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.graph.errors import CaptureError
from fastinfer.graph.functional import is_mutating
from fastinfer.testing.compare import assert_equal, float32_bound


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_close(got, wanted):
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    got, wanted = got.detach(), wanted.detach()
    bound = float32_bound(64, wanted, torch.ones(1))
    assert got.numel() == 0 or float((got - wanted).abs().max()) <= bound


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("example_batch", [1, 2])
def test_batch_and_size_are_free(example_batch):
    model = Conv().eval()
    program = capture(model, (torch.randn(example_batch, 3, 8, 8, generator=generator()),))
    assert program.call.is_dynamic
    for shape in [(1, 3, 8, 8), (2, 3, 8, 8), (5, 3, 8, 8), (3, 3, 11, 6), (0, 3, 8, 8)]:
        x = torch.randn(shape, generator=generator(1))
        got = run(program, x)
        assert got is not None, shape
        assert_close(got, model(x))
    assert run(program, torch.zeros(2, 4, 8, 8)) is None
    assert run(program, torch.zeros(3, 8, 8)) is None


def test_capture_is_functional_and_shares_tensors():
    model = Conv().eval()
    program = capture(model, (torch.randn(2, 3, 8, 8, generator=generator()),))
    for node in program.graph_module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            assert not node.target._schema.is_mutable, node
    pointers = {p.data_ptr() for p in model.parameters()}
    assert {t.data_ptr() for t in program.graph_module.state_dict().values()} <= pointers


def test_model_and_input_are_left_alone():
    model = Conv().eval()
    before = copy.deepcopy(model.state_dict())
    forward, modules = model.forward, dict(model.named_modules())
    x = torch.randn(2, 3, 8, 8, generator=generator())
    kept = x.clone()
    program = capture(model, (x,))
    run(program, x)
    assert_equal(x, kept)
    assert model.forward == forward and dict(model.named_modules()) == modules
    assert all(p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert_equal(value, before[name])


class InPlace(nn.Module):
    def forward(self, x):
        y = x + 1
        y.relu_()
        y += x
        return y.mul_(3)


def test_in_place_operators():
    model = InPlace().eval()
    x = torch.randn(3, 4, generator=generator())
    assert_equal(run(capture(model, (x,)), x), model(x))


class WriteThroughView(nn.Module):
    def forward(self, x):
        y = x + 1
        y[:, 0] = 2.0
        return y


class WriteBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_writes_through_views_become_functional():
    x = torch.randn(3, 4, generator=generator())
    model = WriteThroughView().eval()
    program = capture(model, (x,))
    assert not any(is_mutating(node) for node in program.graph_module.graph.nodes)
    assert_equal(run(program, x), model(x))


def test_writes_into_buffers_are_refused():
    x = torch.randn(3, 4, generator=generator())
    with pytest.raises(CaptureError):
        capture(WriteBuffer().eval(), (x,))


class InPlaceArgument(nn.Module):
    def forward(self, x):
        return x.relu_() + x


def test_input_written_in_place_is_refused_or_right():
    model = InPlaceArgument().eval()
    x = torch.randn(3, 4, generator=generator())
    try:
        program = capture(model, (x.clone(),))
    except CaptureError:
        return
    assert_equal(run(program, x.clone()), model(x.clone()))


class FixedReshape(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, x):
        if x.shape[0] == 4:
            return self.linear(x.reshape(4, 12))
        return self.linear(x.reshape(-1, 12)) * 2


def test_shape_dependent_model_answers_only_what_it_knows():
    model = FixedReshape().eval()
    x = torch.randn(4, 3, 4, generator=generator())
    program = capture(model, (x,))
    assert_close(run(program, x), model(x))
    for batch in (0, 1, 2, 3, 7):
        other = torch.randn(batch, 3, 4, generator=generator(batch))
        got = run(program, other)
        if got is not None:
            assert_close(got, model(other))


class DataDependent(nn.Module):
    def forward(self, x):
        return x + 1 if bool(x.sum() > 0) else x - 1


class Training(nn.Module):
    def forward(self, x):
        return x


def test_refusals():
    with pytest.raises(CaptureError, match=r"torch\.export"):
        capture(DataDependent().eval(), (torch.ones(2, 3),))
    with pytest.raises(CaptureError, match="eval mode"):
        capture(Training().train(), (torch.ones(2, 3),))
    with pytest.raises(TypeError):
        capture(Training().eval(), (torch.ones(2, 3), 1, 2))


@pytest.mark.parametrize("place", ["root", "inner", "pre"])
def test_hooks_are_refused(place):
    model = Conv().eval()
    if place == "pre":
        model.conv.register_forward_pre_hook(lambda module, args: None)
    else:
        target = model if place == "root" else model.conv
        target.register_forward_hook(lambda module, args, out: out + 1)
    with pytest.raises(CaptureError, match="hooks"):
        capture(model, (torch.randn(2, 3, 8, 8),))


class DictOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, image, *, scale=2.0, extra=None):
        y = self.linear(image) * scale
        out = {"y": y, "parts": (y.sum(-1), [image * 1])}
        if extra is not None:
            out["extra"] = extra + y
        return out


def test_dict_output_and_keywords():
    model = DictOut().eval()
    x, extra = torch.randn(2, 4, generator=generator()), torch.randn(2, 3, generator=generator(2))
    program = capture(model, (), {"image": x, "scale": 3.0, "extra": extra})
    got, wanted = run(program, x, scale=3.0, extra=extra), model(x, scale=3.0, extra=extra)
    assert list(got) == list(wanted) and type(got["parts"]) is tuple
    assert_close(got["y"], wanted["y"])
    assert_close(got["parts"][1][0], x)
    assert_close(got["extra"], wanted["extra"])
    assert run(program, x, scale=2.0, extra=extra) is None
    assert run(program, x, scale=3.0) is None
    assert run(program, image=x, extra=extra, scale=3.0) is not None


class Batch(nn.Module):
    def forward(self, batch):
        return batch["a"] * batch["b"]


def test_dict_input():
    model = Batch().eval()
    a, b = torch.randn(2, 3, generator=generator()), torch.randn(2, 3, generator=generator(1))
    program = capture(model, ({"a": a, "b": b},))
    assert_equal(run(program, {"a": a, "b": b}), a * b)
    assert "batch" in program.call.tensor_inputs[0].name
    assert run(program, {"a": a}) is None


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(self.embed(tokens))


def test_tied_parameters_stay_one():
    model = Tied().eval()
    tokens = torch.randint(0, 11, (2, 5), generator=generator())
    program = capture(model, (tokens,))
    assert_close(run(program, tokens), model(tokens))
    pointers = {t.data_ptr() for t in program.graph_module.state_dict().values()}
    assert pointers == {model.embed.weight.data_ptr()}


class Scalar(nn.Module):
    def forward(self, x, n):
        return x * n


def test_number_argument_is_part_of_the_graph():
    model = Scalar().eval()
    x = torch.randn(2, 3, generator=generator())
    program = capture(model, (x, 4))
    assert_equal(run(program, x, 4), x * 4)
    assert run(program, x, 5) is None
    assert run(program, x, 4.0) is None


def test_fallback_to_a_free_batch(monkeypatch):
    monkeypatch.setattr("fastinfer.graph.capture.SYMBOLIC_SECONDS", -1.0)
    model = Conv().eval()
    program = capture(model, (torch.randn(2, 3, 8, 8, generator=generator()),))
    assert any("the batch size free" in note for note in program.report.notes)
    x = torch.randn(5, 3, 8, 8, generator=generator(1))
    assert_close(run(program, x), model(x))
    assert run(program, torch.zeros(2, 3, 9, 8)) is None


def test_fallback_to_the_example_alone(monkeypatch):
    export = torch.export.export

    def static_only(*args, dynamic_shapes=None, **kwargs):
        if dynamic_shapes is not None:
            raise RuntimeError("no symbolic sizes today")
        return export(*args, dynamic_shapes=dynamic_shapes, **kwargs)

    monkeypatch.setattr(torch.export, "export", static_only)
    model = Conv().eval()
    x = torch.randn(1, 3, 8, 8, generator=generator())
    program = capture(model, (x,))
    assert any("no symbolic sizes today" in note for note in program.report.notes)
    assert not program.call.is_dynamic
    assert_close(run(program, x), model(x))
    assert run(program, torch.zeros(2, 3, 8, 8)) is None


class Chosen(nn.Module):
    """How many rows there are, and so which way to go, only the values tell."""

    def forward(self, x):
        chosen = x[torch.where(x[:, 0] > 0)[0]]
        return x if chosen.numel() == 0 else chosen


def test_values_that_decide_are_refused_quietly_and_soon(monkeypatch, capfd):
    tries = []
    export = torch.export.export
    monkeypatch.setattr(
        torch.export, "export", lambda *a, **k: (tries.append(1), export(*a, **k))[1]
    )
    with pytest.raises(CaptureError, match="data-dependent"):
        capture(Chosen().eval(), (torch.randn(4, 3, generator=generator()),))
    assert len(tries) == 2
    assert capfd.readouterr().err == ""


class TwoIsSpecial(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] == 2 else x + x


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_example_itself_is_always_taken(batch):
    model = TwoIsSpecial().eval()
    x = torch.randn(batch, 3, generator=generator())
    program = capture(model, (x,))
    assert_equal(run(program, x), model(x))


class Two(nn.Module):
    """Maps of two sizes that never meet: a batch symbol each."""

    def forward(self, maps):
        return [m.flatten(1).sum(1) for m in maps]


@pytest.mark.parametrize("batch", [1, 2])
def test_maps_of_several_sizes_share_their_batch(batch):
    maps = [torch.randn(batch, 3, 8, 8), torch.randn(batch, 3, 4, 4)]
    program = capture(Two().eval(), (maps,))
    assert all(i.sizes[0].low == 0 for i in program.call.tensor_inputs)
    for count in (0, 1, 3):
        got = run(program, [torch.randn(count, 3, 6, 6), torch.randn(count, 3, 10, 10)])
        assert got is not None and [len(g) for g in got] == [count, count]


def test_other_calls_say_which_sizes_vary(monkeypatch):
    monkeypatch.setattr("fastinfer.graph.capture.SYMBOLIC_SECONDS", -1.0)
    model = Conv().eval()
    x, tall = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 12, 8)
    program = capture(model, (x,), others=[((tall,), {})])
    assert any("differ between calls" in note for note in program.report.notes)
    assert_close(run(program, tall), model(tall))
    assert run(program, torch.randn(2, 3, 12, 12)) is None


class OneIsSpecial(nn.Module):
    def forward(self, x):
        return x * 3 if x.shape[1] == 1 else x + 1


def test_another_call_that_the_graph_answers_wrongly_is_not_taken():
    model, one = OneIsSpecial().eval(), torch.ones(2, 1)
    program = capture(model, (torch.ones(2, 3),), others=[((one,), {})])
    assert run(program, one) is None
    assert_equal(run(program, torch.ones(2, 4)), torch.full((2, 4), 2.0))


def test_names_get_a_prefix():
    program = capture(Conv().eval(), (torch.randn(2, 3, 8, 8),), prefix="body.")
    names = {name for name, _ in program.graph_module.named_parameters()}
    assert "_tensors.body.conv.weight" in names and len(names) == 4


class Chooses(nn.Module):
    def forward(self, x):
        return x[: int(x.sum().abs()) + 1]


def test_a_reason_is_one_short_line_and_says_where():
    with pytest.raises(CaptureError) as found:
        capture(Chooses().eval(), (torch.ones(4, 3),))
    reason = str(found.value)
    assert "\n" not in reason and len(reason) < 300
    assert "test_capture.py" in reason or "data-dependent" in reason
