import copy
import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastinfer import convert
from fastinfer.measure import compare
from fastinfer.types import TensorQuant


class Block(nn.Module):
    """Residual with a shortcut after the last convolution, as in ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(4, 8, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.conv(x))
        y += self.shortcut(x)
        return self.relu(y)


class Fused(nn.Module):
    """What a converter makes of Block: BatchNorm, residual and ReLU inside the convolution."""

    class Conv(nn.Module):
        def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d, quant: TensorQuant | None) -> None:
            super().__init__()
            self.inner = nn.utils.fuse_conv_bn_eval(conv, bn)
            self.output_quant = quant
            self.is_int8 = quant is not None

        def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.inner(x) + residual)
            if not self.is_int8:
                return y
            q = torch.round(y / self.output_quant.scale[0]) + self.output_quant.zero_point
            return q.clamp(0, 255).to(torch.uint8)

    def __init__(self, block: Block, quant: TensorQuant | None = None) -> None:
        super().__init__()
        self.conv = Fused.Conv(copy.deepcopy(block.conv), copy.deepcopy(block.bn), quant)
        self.shortcut = copy.deepcopy(block.shortcut)
        self.quant = quant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x, self.shortcut(x))
        return y if self.quant is None else self.quant.scale[0] * y.float()


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block().eval()


X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def test_a_copy_is_equal_everywhere(block: Block) -> None:
    found = compare(block, copy.deepcopy(block), X)
    assert found.sqnr_db == float("inf") and found.samples == 2 and found.top1 is None
    assert [row.name for row in found.layers] == ["conv", "shortcut"]
    assert all(row.sqnr_db == float("inf") for row in found.layers)


def test_a_fused_layer_is_compared_with_what_it_answers(block: Block) -> None:
    rows = {row.name: row for row in compare(block, Fused(block), X).layers}
    assert rows["conv"].reference_name in ("relu", "bn") and rows["conv"].sqnr_db > 100
    assert rows["shortcut"].reference_name == "shortcut"


def test_functions_between_modules_are_compared_with(block: Block) -> None:
    class Functional(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(self.bn(self.conv(x)) + self.shortcut(x))

    functional = Functional().eval()
    functional.load_state_dict(block.state_dict())
    rows = {row.name: row for row in compare(functional, Fused(block), X).layers}
    assert rows["conv"].reference_name == "shortcut, then relu" and rows["conv"].sqnr_db > 100
    assert rows["shortcut"].reference_name == "shortcut"


def test_functions_of_a_converted_model_are_compared_with() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(8, 64, 3), nn.Conv2d(64, 64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.relu(self.conv1(x))
            return torch.sigmoid(self.conv2(x)).mean((2, 3))

    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(4, 8, 12, 12)
    rows = {r.name: r for r in compare(net, convert(net, x, config="int8"), x).layers}
    assert rows["conv1"].reference_name == "conv1, then relu" and rows["conv1"].sqnr_db > 20
    assert rows["conv2"].sqnr_db > 20


def test_int8_outputs_are_dequantized_with_their_scale(block: Block) -> None:
    rows = {r.name: r for r in compare(block, Fused(block, TensorQuant((0.02,), 0)), X).layers}
    assert 30 < rows["conv"].sqnr_db < 60


def test_int8_without_a_scale_is_skipped_with_the_reason(block: Block) -> None:
    fast = Fused(block, TensorQuant((0.02,), 0))
    # Runs after the layer and before compare's own hook reads the scale.
    fast.conv.register_forward_hook(
        lambda module, _args, _out: setattr(module, "output_quant", None)
    )
    found = compare(block, fast, X)
    assert dict(found.skipped) == {"conv": "answers torch.uint8 and its scale is not known"}
    assert "Layers not compared (1)" in str(found)


def test_an_idle_float_original_inside_does_not_matter(block: Block) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = Fused(block, TensorQuant((0.02,), 0))
            self.original = block

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.graph(x)

    rows = {row.name: row for row in compare(block, Wrapper(), X).layers}
    assert 30 < rows["conv"].sqnr_db < 60 and rows["shortcut"].sqnr_db > 100


def test_missing_layers_are_said(block: Block) -> None:
    found = compare(block, nn.Conv2d(4, 8, 3, padding=1), X)
    assert dict(found.skipped).keys() == {"conv", "shortcut"}
    assert "no layer of that name" in dict(found.skipped)["conv"]


def test_batches_labels_and_top1() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(10, 4)
    loader = DataLoader(TensorDataset(x, torch.arange(10) % 3), batch_size=4)
    found = compare(model, copy.deepcopy(model), loader)
    assert found.samples == 10 and found.top1 == 1.0
    assert compare(model, copy.deepcopy(model), [x, x]).samples == 20
    assert json.loads(json.dumps(found.to_dict()))["outputs"][0]["sqnr_db"] is None
    assert "top-1 agreement 100.0 % of 10 samples" in str(found)


def test_every_tensor_of_the_output_counts() -> None:
    def model(x):
        return {"a": x, "b": [x * 2, "text"]}

    def worse(x):
        return {"a": x, "b": [x * 2.2, "text"]}

    found = compare(model, worse, X)
    assert [row.name for row in found.outputs] == ["output['a']", "output['b'][0]"]
    assert found.outputs[1].sqnr_db == pytest.approx(20, abs=1e-4) == found.sqnr_db


def test_hooks_are_removed_and_modes_come_back(block: Block) -> None:
    block.train()
    compare(block, copy.deepcopy(block), X)
    assert block.training and block.bn.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in block.modules())


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ([], ValueError, "at least one batch"),
        (3, TypeError, "a tensor, tuple, dict or an iterable of these, got int"),
    ],
)
def test_bad_inputs(inputs: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        compare(nn.Identity(), nn.Identity(), inputs)


def test_other_outputs() -> None:
    with pytest.raises(ValueError, match="expected outputs"):
        compare(lambda x: (x, x), lambda x: x, X)
    with pytest.raises(ValueError, match="like the reference's"):
        compare(lambda x: x, lambda x: x[:1], X)
