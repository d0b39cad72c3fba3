"""Models with random weights, and inputs to calibrate them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from island_models import ISLANDS
from torch import Tensor, nn
from transformer_models import TRANSFORMERS, encoder

CALIBRATION = 16
IMAGE, TEXT = (3, 224, 224), (128, 384)


class _Answer(nn.Module):
    """Returns one entry of a model's dictionary, as a serving stack would ask for."""

    def __init__(self, model: nn.Module, key: str) -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x)[self.key]
        return answer


def _torchvision(name: str, **options: object) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, **options)


def _segmentation(name: str) -> nn.Module:
    return _Answer(_torchvision(name, weights_backbone=None), "out")


def _mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(1024, 1024), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(1024, 1000))


VISION = (
    "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b0", "resnet18",
    "resnet50", "regnet_y_400mf", "squeezenet1_1", "densenet121",
)  # fmt: skip
#: Name -> (builder, shape of one input without the batch).
BUILDERS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{name: (partial(_torchvision, name), IMAGE) for name in VISION},
    "googlenet": (partial(_torchvision, "googlenet", init_weights=True, aux_logits=False), IMAGE),
    "deeplabv3_resnet50": (partial(_segmentation, "deeplabv3_resnet50"), (3, 256, 256)),
    "transformer_6x384": (encoder, TEXT),
    "mlp_1024": (_mlp, (1024,)),
    **ISLANDS,
    **TRANSFORMERS,
}


def random_model(name: str, calibration: int = CALIBRATION) -> tuple[nn.Module, Tensor]:
    """Return a model in eval mode and inputs [calibration, ...] to calibrate with.

    BatchNorm gets the statistics of these inputs. With those of construction, activations shrink to
    1e-9 through MobileNetV2, as in no trained network.
    """
    build, shape = BUILDERS[name]
    torch.manual_seed(0)
    model, inputs = build().eval(), torch.randn(calibration, *shape)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the last batch counts, and it is the only one
    if norms:
        with torch.no_grad():
            model(inputs)
    return model.eval(), inputs
