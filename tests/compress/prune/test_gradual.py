"""CubicSchedule and GradualPruner: sparsity as scheduled, masks held between, state kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastinfer.compress.prune import CubicSchedule, GradualPruner
from fastinfer.compress.prune.schedule import pattern_at
from fastinfer.types.sparsity import NM, Unstructured


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 64),
        nn.Linear(64, 64),
        nn.Linear(64, 5),
    )


def batch():
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def train(model, pruner, steps, optimizer=None):
    """Return pruner.sparsity after each step."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=0.01)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(batch()).square().mean().backward()
        optimizer.step()
        pruner.step()
        found.append(pruner.sparsity)
    return found


def test_the_curve():
    schedule = CubicSchedule(10, 110, every=10, initial=0.1)
    assert [schedule.sparsity(s, 0.9) for s in (0, 9, 110, 500)] == [0, 0, 0.9, 0.9]
    assert schedule.sparsity(10, 0.9) == pytest.approx(0.1)
    # Half way an eighth of the difference is left.
    assert schedule.sparsity(60, 0.9) == pytest.approx(0.9 - 0.8 / 8)
    curve = [schedule.sparsity(s, 0.9) for s in range(10, 111)]
    assert curve == sorted(curve)
    assert [s for s in range(200) if schedule.is_update(s)] == list(range(10, 111, 10))
    assert [s for s in range(20) if CubicSchedule(3, 8, every=4).is_update(s)] == [3, 7, 8]
    assert CubicSchedule(5, 5).sparsity(5, 0.5) == 0.5


def test_patterns_on_the_way():
    final = NM(16, 64, share=2)
    kept = [pattern_at(final, s).n for s in (0, 0.3, 0.5, 0.745, 0.75, 0.9)]
    assert kept == [64, 45, 32, 16, 16, 16]
    assert pattern_at(final, 0.3).share == 2
    assert [pattern_at(NM(2, 4), s).n for s in (0, 0.2, 0.4, 0.5)] == [4, 3, 2, 2]
    assert pattern_at(Unstructured(0.25), 0.4).density == pytest.approx(0.6)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_unstructured_sparsity_at_each_step(scope):
    model = network()
    schedule = CubicSchedule(2, 8, every=3)
    pruner = GradualPruner(model, "unstructured", 0.8, schedule, scope=scope)
    found = train(model, pruner, 12)
    wanted = [0, 0] + [schedule.sparsity(s, 0.8) for s in (2, 2, 2, 5, 5, 5, 8, 8, 8, 8)]
    # Every layer's count is rounded; the smallest has 2048 weights.
    assert found == pytest.approx(wanted, abs=1 / 2048)
    assert pruner.finished
    shares = {n: float(m.float().mean()) for n, m in pruner.masks.items()}
    assert set(shares) == {"3.weight", "6.weight", "7.weight"}
    if scope == "layer":
        assert all(share == pytest.approx(0.2, abs=1e-3) for share in shares.values())
    else:
        assert max(shares.values()) - min(shares.values()) > 0.02


@pytest.mark.parametrize("pattern", ["nm64", "nm64x2", "2:4"])
def test_groups_at_the_end(pattern):
    model = network()
    pruner = GradualPruner(model, pattern, 0.5, CubicSchedule(0, 4))
    train(model, pruner, 6)
    m = 4 if pattern == "2:4" else 64
    assert set(pruner.masks) >= {"3.weight", "7.weight"}
    for mask in pruner.masks.values():
        assert (mask.flatten(1).view(mask.shape[0], -1, m).sum(-1) == m // 2).all()
    if pattern != "2:4":  # 32 inputs are less than a group
        assert "6.weight" not in pruner.masks
    for index in (0, 2, 8):  # first convolution, depthwise, head
        assert (model[index].weight != 0).all()


def test_a_pruned_weight_stays_pruned():
    model = network()
    pruner = GradualPruner(model, "unstructured", 0.9, CubicSchedule(0, 10, every=2))
    before = {}
    for _ in range(12):
        train(model, pruner, 1)
        for name, mask in pruner.masks.items():
            assert not (mask & ~before.get(name, torch.ones_like(mask))).any()
        before = pruner.masks


def test_no_layer_is_emptied():
    model = network()
    with torch.no_grad():
        model[6].weight *= 1e-6
    pruner = GradualPruner(model, "unstructured", 0.9, CubicSchedule(0, 0))
    pruner.step()
    assert int(pruner.masks["6.weight"].sum()) == int(0.01 * 2048)


def test_state_goes_on_where_it_was():
    model = network()
    schedule = CubicSchedule(1, 9, every=2)
    pruner = GradualPruner(model, "nm64x2", 0.75, schedule)
    train(model, pruner, 5)
    other = copy.deepcopy(model)
    copied = GradualPruner(other, "nm64x2", 0.75, schedule)
    copied.load_state_dict(pruner.state_dict())
    assert copied.steps == 5 and not copied.finished
    assert train(model, pruner, 7) == train(other, copied, 7)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_conv1d_and_ignored_layers():
    model = nn.Sequential(
        nn.Conv1d(1, 64, 3), nn.Conv1d(64, 32, 3), nn.ModuleList([nn.Linear(64, 64)]),
        nn.Linear(64, 64), nn.Linear(64, 2),
    )  # fmt: skip
    schedule = CubicSchedule(0, 0)

    def layers(**options):
        with GradualPruner(model, "nm64", 0.75, schedule, **options) as pruner:
            pruner.step()
            return set(pruner.masks)

    everything = {"1.weight", "2.0.weight", "3.weight", "4.weight"}
    assert layers(dense_ends=False) == everything  # the first has 3 inputs
    assert layers() == everything - {"4.weight"}
    assert layers(ignore=["2.*"]) == {"1.weight", "3.weight"}
    assert layers(ignore=[nn.Linear]) == {"1.weight"}
    rows = (model[1].weight != 0).movedim(1, -1).reshape(32, 3, 64)
    assert (rows.sum(-1) == 16).all()
    in_list = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64)])
    with GradualPruner(in_list, "nm64", 0.5, schedule) as pruner:
        pruner.step()
        assert set(pruner.masks) == {"0.weight", "1.weight"}


def test_weights_that_an_embedding_reads_stay_dense():
    model = nn.Sequential(nn.Embedding(64, 64), nn.Linear(64, 64), nn.Linear(64, 64, bias=False))
    model[2].weight = model[0].weight
    with GradualPruner(model, "nm64", 0.5, CubicSchedule(0, 0), dense_ends=False) as pruner:
        pruner.step()
        assert set(pruner.masks) == {"1.weight"}


def test_remove_leaves_nothing():
    model = network()
    keys = list(model.state_dict())
    pruner = GradualPruner(model, "nm64", 0.5, CubicSchedule(0, 0))
    pruner.step()
    pruner.remove()
    assert list(model.state_dict()) == keys
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


ONE = CubicSchedule(0, 0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: CubicSchedule(5, 2), ValueError, "start=5, end=2"),
        (lambda m: CubicSchedule(-1, 2), ValueError, "expected 0 <= start"),
        (lambda m: CubicSchedule(0, 2.5), TypeError, "end: expected a whole number, got 2.5"),
        (lambda m: CubicSchedule(0, 2, every=0), ValueError, "every: expected 1 step"),
        (lambda m: CubicSchedule(0, 2, initial=1.0), ValueError, "initial: expected 0..1"),
        (lambda m: GradualPruner("m", "nm64", 0.5, ONE), TypeError, "got str"),
        (lambda m: GradualPruner(m, "nm64", 0.5, 10), TypeError, "expected a CubicSchedule"),
        (lambda m: GradualPruner(m, "nm64", None, ONE), ValueError, "sparsity: expected one"),
        (lambda m: GradualPruner(m, "2:4", 0.6, ONE), ValueError, "nearest sparsity is 0.5"),
        (lambda m: GradualPruner(m, NM(16), 0.5, ONE), ValueError, "has 0.75, got 0.5"),
        (lambda m: GradualPruner(m, 5, 0.5, ONE), TypeError, "pattern: expected a name"),
        (
            lambda m: GradualPruner(m, "nm64", 0.5, CubicSchedule(0, 1, initial=0.6)),
            ValueError,
            "initial <= the sparsity at the end, 0.5, got 0.6",
        ),
        (lambda m: GradualPruner(m, "nm64", 0.5, ONE, ignore="3"), TypeError, "the string '3'"),
        (lambda m: GradualPruner(m, "nm64", 0.5, ONE, ignore=["x"]), ValueError, "got 'x'"),
        (lambda m: GradualPruner(m, "nm64", 0.5, ONE, ignore=[3]), TypeError, "got 3"),
        (lambda m: GradualPruner(m, "nm64", 0.5, ONE, ignore=["*"]), ValueError, "all dense by"),
        (lambda m: GradualPruner(m, "nm64", 0.5, ONE, scope="net"), ValueError, "got 'net'"),
        (
            lambda m: GradualPruner(m, "nm64", 0.5, ONE).load_state_dict(
                {"steps": 1, "masks": {"9.weight": torch.ones(1)}}
            ),
            ValueError,
            "they differ in",
        ),
    ],
)
def test_bad_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call(network())
