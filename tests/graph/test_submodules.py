"""record_calls and capture_submodules: what is recorded, what is tried, and what is captured."""

from __future__ import annotations

import pytest
import torch
from program_call import run
from torch import nn

from fastinfer.graph import submodules as search_module
from fastinfer.graph.recording import KEPT_CALLS, record_calls
from fastinfer.graph.submodules import candidates, capture_submodules
from fastinfer.testing.compare import assert_equal


def image(batch=1, size=8, channels=3):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(size))


def stem():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x, *, scale=1.0):
        return self.out(torch.relu(self.conv(x))) * scale


class Levels(nn.Module):
    """A head on every level of a pyramid, until a value stops it: no graph of the whole."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = stem(), Head()
        self.unused = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.norms = nn.ModuleList([nn.BatchNorm2d(4)])

    def forward(self, x):
        x, found = self.norms[0](self.stem(x)), []
        while bool(x.sum() < 1e9):
            found.append(self.head(x))
            if x.shape[-1] == 1:
                break
            x = nn.functional.max_pool2d(x, 2)
        return found


def search(model, x, is_ignored=lambda name: False):
    names = candidates(model.eval(), is_ignored)
    return capture_submodules(model, record_calls(model, ((x,), {}), names), names)


def test_candidates_hold_layers():
    model = Levels()
    assert candidates(model, lambda name: False) == {"stem", "head", "unused"}
    assert candidates(model, lambda name: name.startswith("head.")) == {"stem", "unused"}


def test_calls_are_recorded_as_they_were():
    model = Levels().eval()
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    kept = (x := image(size=16)).clone()
    found = record_calls(model, ((x,), {}), {"stem", "head", "unused", "stem.1"})
    assert_equal(x, kept)
    assert set(found) == {"stem", "head", "stem.1"}
    assert found["head"].count == 5 and found["head"].seconds > 0
    assert [args[0].shape[-1] for args, _ in found["head"].calls] == [16, 8, 4, 2, 1]
    # The in-place ReLU wrote into its input afterwards; the recorded copy is from before.
    assert bool((found["stem.1"].calls[0][0][0] < 0).any())
    assert before == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_calls_of_one_size_are_kept_once_and_the_largest_comes_first():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = Head()

        def forward(self, x):
            for size in [1, 2, 2, *range(3, 14)]:
                self.head(x[..., :size, :size], scale=1.0)
            return x[..., 0, 0]

    recording = record_calls(Loop().eval(), ((image(size=16, channels=4),), {}), {"head"})["head"]
    assert recording.count == 14 and len(recording.calls) == KEPT_CALLS
    assert [args[0].shape[-1] for args, _ in recording.by_size] == [8, 7, 6, 5, 4, 3, 2, 1]


def test_the_largest_submodules_are_captured():
    model = Levels()
    found = search(model, image(size=16))
    assert [part.name for part in found.found] == ["stem", "head"] and not found.reasons
    assert found.found[1].count == 5 and len(found.found[1].calls) == 5
    names = set(dict(found.found[1].program.graph_module.named_parameters()))
    assert names == {f"_tensors.head.{n}" for n, _ in model.head.named_parameters()}
    for size in (16, 8, 2, 1, 11):
        x = image(3, size, 4)
        got = run(found.found[1].program, x, scale=1.0)
        assert got is not None, size
        torch.testing.assert_close(got, model.head(x))


class Values(nn.Module):
    """No graph: a value decides."""

    def __init__(self, channels=4):
        super().__init__()
        self.part, self.rest = Head(), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        y = self.part(x)
        return self.rest(y) if bool(y.sum() < 1e9) else x


def test_a_failing_submodule_is_searched_for_its_children():
    model = nn.Sequential(stem(), Values())
    found = search(model, image())
    assert [part.name for part in found.found] == ["0", "1.part"]
    assert list(found.reasons) == ["1"]
    reason = found.reasons["1"]
    assert "data-dependent" in reason and "test_submodules.py" in reason and "\n" not in reason


def test_one_class_fails_only_so_often():
    model = nn.Sequential(stem(), *[Values() for _ in range(4)])
    found = search(model, image())
    assert [part.name for part in found.found] == ["0", *(f"{i}.part" for i in range(1, 5))]
    skipped = [r for r in found.reasons.values() if "of the same class failed" in r]
    assert len(found.reasons) == 4 and len(skipped) == 2


def test_the_search_ends_in_time(monkeypatch):
    monkeypatch.setattr(search_module, "SEARCH_SECONDS", -1.0)
    found = search(Levels(), image())
    assert not found.found and set(found.reasons) == {"stem", "head"}
    assert all("not tried" in reason for reason in found.reasons.values())


def test_what_takes_longest_is_tried_first(monkeypatch):
    model = Levels().eval()
    names = {"stem", "head"}
    recordings = record_calls(model, ((image(),), {}), names)
    recordings["stem"].seconds, recordings["head"].seconds = 1.0, 2.0
    tried = []

    def spy(name, module, recording):
        tried.append(name)
        raise search_module.CaptureError("no")

    monkeypatch.setattr(search_module, "_captured", spy)
    capture_submodules(model, recordings, names)
    assert tried == ["head", "stem"]


def test_a_shared_submodule_is_captured_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Head()
            self.blocks = nn.ModuleList([self.first])

        def forward(self, x):
            y = self.first(x)
            return self.blocks[0](x * 2) if bool(y.sum() < 1e9) else y

    found = search(Twice(), image(channels=4))
    assert [(part.name, part.count) for part in found.found] == [("first", 2)]


@pytest.mark.parametrize("place", ["itself", "inside"])
def test_hooked_submodules_are_not_captured(place):
    model = Levels()
    (model.stem if place == "itself" else model.stem[0]).register_forward_hook(lambda *a: None)
    found = search(model, image())
    assert [part.name for part in found.found] == ["head"] and "hooks" in found.reasons["stem"]


class Doubles(nn.Sequential):
    def __call__(self, x):
        return super().__call__(x) * 2


def test_a_call_of_its_own_is_kept():
    model = Levels()
    model.stem = Doubles(stem())
    found = search(model, image())
    assert [part.name for part in found.found] == ["stem.0", "head"]
    assert "__call__ of its own" in found.reasons["stem"]


def test_a_submodule_that_gets_nothing_is_not_captured():
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = Head()

        def forward(self, x):
            return self.head(x[x[:, 0, 0, 0] > 1e9])

    found = search(Nothing(), image(channels=4))
    assert not found.found and "without a tensor that has elements" in found.reasons["head"]
