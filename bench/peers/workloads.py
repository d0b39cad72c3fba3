"""What is compared: a model, its calibration inputs, and the batches and threads it is timed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from island_models import ISLANDS
from random_models import random_model
from torch import Tensor, nn
from transformer_models import TRANSFORMERS

#: Inputs that calibrate every int8 contender, and inputs the accuracy is taken on. Both are the
#: same for all, and have no sample in common.
CALIBRATION, HELD_OUT = 8, 16
CROPS = 256


@dataclass(frozen=True)
class Case:
    """A batch size and a number of threads; the least `bar` for ours over OpenVINO's int8."""

    batch: int = 1
    threads: int = 2
    bar: float | None = None


@dataclass(frozen=True)
class Workload:
    """A built model. calibration: [CALIBRATION, ...]; held_out: [n, ...], all float32."""

    model: nn.Module
    calibration: Tensor
    held_out: Tensor
    #: Random weights: no layer returns to float for its accuracy, which is that of noise.
    is_random: bool
    is_transformer: bool = False


#: The demo's network, with its ImageNet weights and photos.
REAL = "mobilenet_v2"
CASES: Mapping[str, tuple[Case, ...]] = {
    "resnet50": (Case(bar=1.20), Case(threads=1, bar=1.05), Case(batch=16, bar=1.15)),
    "resnet18": (Case(bar=1.2),),
    REAL: (Case(bar=1.7), Case(threads=1), Case(batch=16, bar=1.3)),
    "mobilenet_v3_large": (Case(bar=1.3),),
    "efficientnet_b0": (Case(bar=1.3),),
    "shufflenet_v2_x1_0": (Case(bar=1.3),),
    "regnet_y_400mf": (Case(bar=1.3),),
    "squeezenet1_1": (Case(bar=1.1),),
    "densenet121": (Case(bar=1.1),),
    "googlenet": (Case(bar=1.1),),
    "deeplabv3_resnet50": (Case(bar=1.1),),
}
#: On request: networks with float operations between int8 layers.
ISLAND_CASES: Mapping[str, tuple[Case, ...]] = {name: (Case(), Case(batch=8)) for name in ISLANDS}
TRANSFORMER_CASES: Mapping[str, tuple[Case, ...]] = {
    name: (Case(), Case(batch=8)) for name in TRANSFORMERS
}


def build_workload(name: str) -> Workload:
    """Return the workload of this name; the same call in another process gives the same one.

    Raises:
        DemoDataError: the demo's weights or photos are not installed.
    """
    if name == REAL:
        from fastinfer.demo.photos import random_crops, split_photos
        from fastinfer.demo.weights import mobilenet_v2

        calibrating, evaluating = split_photos()
        crops = random_crops(evaluating, CROPS, seed=1)
        return Workload(mobilenet_v2(), random_crops(calibrating, CALIBRATION, 0), crops, False)
    model, inputs = random_model(name, CALIBRATION)
    torch.manual_seed(1)
    held_out = torch.randn(HELD_OUT, *inputs.shape[1:])
    return Workload(model, inputs, held_out, True, name in TRANSFORMERS)
