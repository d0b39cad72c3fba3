"""hold_masks: zeros stay zeros under any optimizer, and nothing of it is left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastinfer.compress.prune import hold_masks, largest_kept
from fastinfer.compress.prune.hold import zero_masks
from fastinfer.types.sparsity import Unstructured

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9),
    "fused": lambda p: torch.optim.AdamW(p, 0.05, fused=True),
}


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 6), nn.Linear(6, 3)
    )


def pruned(layers=("0", "3")):
    model = network()
    with torch.no_grad():
        for name in layers:
            weight = model.get_submodule(name).weight
            weight *= largest_kept(weight.square(), Unstructured(0.3))
    return model


def zeros(model):
    return {n: p == 0 for n, p in model.named_parameters() if p.dim() > 1}


def train(model, optimizer, steps=6):
    data = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_and_others_move(name):
    model = pruned()
    before, weights = zeros(model), copy.deepcopy(model.state_dict())
    with hold_masks(model):
        train(model, OPTIMIZERS[name](model.parameters()))
    for key, zero in before.items():
        weight = model.state_dict()[key]
        assert torch.equal(weight == 0, zero)
        assert not torch.equal(weight[~zero], weights[key][~zero])


def test_without_a_hold_zeros_move():
    model = pruned()
    before = zeros(model)
    train(model, OPTIMIZERS["sgd"](model.parameters()))
    assert not torch.equal(zeros(model)["0.weight"], before["0.weight"])


def test_momentum_from_before_does_not_move_them():
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer)
    with torch.no_grad():
        weight = model[3].weight
        weight *= largest_kept(weight.square(), Unstructured(0.3))
    zero = weight == 0
    with hold_masks(model):
        train(model, optimizer)
    assert torch.equal(weight == 0, zero)


def test_gradients_are_masked_before_clipping():
    model = pruned()
    with hold_masks(model):
        model(torch.randn(8, 2, 6, 6)).square().mean().backward()
        for key, zero in zeros(model).items():
            assert (model.get_parameter(key).grad[zero] == 0).all()


def test_infinite_gradients_of_zeros_leave_no_nan():
    model = pruned(["3"])
    weight = model[3].weight
    zero = weight == 0
    with hold_masks(model):
        weight.register_hook(lambda g: torch.where(zero, torch.inf, g))
        train(model, OPTIMIZERS["sgd"](model.parameters()), 1)
    assert (weight[zero] == 0).all() and weight.isfinite().all()


def test_lbfgs_with_its_closure():
    model = pruned()
    before = zeros(model)
    data = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = model(data).square().mean()
        loss.backward()
        return loss

    with hold_masks(model):
        optimizer.step(closure)
    assert all(torch.equal(zero, zeros(model)[key]) for key, zero in before.items())


def test_nothing_is_left():
    model = pruned()
    keys, modules = list(model.state_dict()), [type(m) for m in model.modules()]
    hold = hold_masks(model)
    assert list(model.state_dict()) == keys and [type(m) for m in model.modules()] == modules
    hold.remove()
    hold.remove()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    before = zeros(model)
    train(model, OPTIMIZERS["adam"](model.parameters()))
    assert not torch.equal(zeros(model)["3.weight"], before["3.weight"])


def test_another_models_optimizer_is_left_alone():
    model, other = pruned(), network()
    with hold_masks(model), torch.no_grad():
        model[3].weight.fill_(1)
        train_other = OPTIMIZERS["sgd"](other.parameters())
        with torch.enable_grad():
            train(other, train_other)
        assert (model[3].weight == 1).all()


def test_two_holds_at_once():
    first, second = pruned(), pruned(["0"])
    before = zeros(first), zeros(second)
    with hold_masks(first), hold_masks(second):
        train(first, OPTIMIZERS["adam"](first.parameters()))
        train(second, OPTIMIZERS["adam"](second.parameters()))
    assert torch.equal(zeros(first)["3.weight"], before[0]["3.weight"])
    assert torch.equal(zeros(second)["0.weight"], before[1]["0.weight"])


def test_which_weights_are_held():
    model = pruned(["3"])
    with torch.no_grad():
        model[0].weight.view(-1)[0] = 0  # one of 144: by chance
        model[4].weight.zero_()
        model[4].bias.zero_()  # of one dimension
    assert set(zero_masks(model)) == {"3.weight", "4.weight"}
    assert set(zero_masks(model, 0.0)) == {"0.weight", "3.weight", "4.weight"}


def test_tied_and_frozen_weights():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[2].weight[:2] = 0
    model[2].requires_grad_(False)
    with hold_masks(model) as hold:
        assert set(hold.masks) == {"0.weight", "2.weight"}
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.1)
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
    assert (model[1].weight[:2] == 0).all()


def test_update_takes_other_masks():
    model = network()
    mask = torch.ones(3, 6, dtype=torch.bool)
    with hold_masks(model, {"4.weight": mask}) as hold:
        mask = mask.clone()
        mask[0] = False
        hold.update({"4.weight": mask})
        assert (model[4].weight[0] == 0).all()
        train(model, OPTIMIZERS["adam"](model.parameters()))
        assert (model[4].weight[0] == 0).all() and torch.equal(hold.masks["4.weight"], mask)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: hold_masks(3), TypeError, "model: expected an nn.Module, got int"),
        (lambda m: hold_masks(m, least=2), ValueError, "least: expected a share of zeros"),
        (lambda m: hold_masks(m, {"9.weight": 0}), ValueError, r"got \['9.weight'\]"),
        (
            lambda m: hold_masks(m, {"4.weight": torch.ones(3, 5, dtype=torch.bool)}),
            ValueError,
            r"masks\['4.weight'\]: expected bool \[3, 6\], got bool \[3, 5\]",
        ),
        (lambda m: hold_masks(m, {"4.weight": torch.ones(3, 6)}), ValueError, "got float32"),
    ],
)
def test_bad_input_is_named(call, error, text):
    model = network()
    with pytest.raises(error, match=text):
        call(model)
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
