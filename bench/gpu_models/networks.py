"""The networks that are timed on a GPU, with random weights, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from random_models import random_model
from torch import Tensor, nn

#: Inputs that calibrate.
CALIBRATION = 16


@dataclass(frozen=True)
class Network:
    """A model in eval mode on the CPU, float32, and calibration inputs [CALIBRATION, ...].

    more: n -> [n, ...] inputs of the same kind that were not used for calibration.
    """

    model: nn.Module
    calibration: Tensor
    more: Callable[[int], Tensor]


def _image_network(name: str) -> Network:
    model, calibration = random_model(name, CALIBRATION)

    def more(count: int) -> Tensor:
        torch.manual_seed(1)
        return torch.randn(count, *calibration.shape[1:])

    return Network(model, calibration, more)


def _vit() -> Network:
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.vit_b_16(weights=None).eval()
    # Its classifier starts at zero, and all answers would be.
    nn.init.normal_(model.heads.head.weight, std=0.02)

    def more(count: int, seed: int = 1) -> Tensor:
        torch.manual_seed(seed)
        return torch.randn(count, 3, 224, 224)

    return Network(model, more(CALIBRATION, seed=0), more)


class _Hidden(nn.Module):
    """BERT from token ids to hidden states, [N, 128] -> [N, 128, 768]."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(), add_pooling_layer=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.bert(ids, return_dict=False)[0]
        return hidden


def _bert() -> Network:
    torch.manual_seed(0)
    model = _Hidden().eval()

    def more(count: int, seed: int = 1) -> Tensor:
        torch.manual_seed(seed)
        return torch.randint(1000, 30000, (count, 128))

    return Network(model, more(CALIBRATION, seed=0), more)


#: Name -> builder.
NETWORKS: Mapping[str, Callable[[], Network]] = {
    "resnet50": lambda: _image_network("resnet50"),
    "mobilenet_v2": lambda: _image_network("mobilenet_v2"),
    "vit_b_16": _vit,
    "bert_base": _bert,
}
