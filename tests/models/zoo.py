"""Every torchvision model with float weights: how it is built, and the smallest inputs it takes.

Names come from `torchvision.models.list_models`, so a model that a later torchvision adds is tested
without an edit here. Sizes come from the `min_size` that torchvision documents with its weights
(nothing is downloaded). Networks without a limit of their own take a single pixel, on which all but
the centre of every filter reads padding; they are converted at `FLOOR` pixels, the total stride of
a classification network, and must answer at their documented minimum too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

#: Height and width at which models without a larger minimum are converted.
FLOOR = 32
#: Frames of a clip at which video models without a larger minimum are converted.
FLOOR_FRAMES = 8
#: Detectors resize what they are given: to this side here, on which their pyramid has 7 levels.
DETECTOR_SIDE = 128

#: What a builder needs beyond `weights=None`. Detectors as built propose 1000 boxes of which none
#: passes the score threshold with random weights; these let a few reach every head (a keypoint head
#: takes 0.1 s for each), and leave non-maximum suppression, which stays as it is, little to do.
_TWO_STAGE = {
    "min_size": DETECTOR_SIDE,
    "max_size": DETECTOR_SIDE,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_test": 32,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 8,
}
_ONE_STAGE = {"min_size": DETECTOR_SIDE, "max_size": DETECTOR_SIDE, "topk_candidates": 100}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": True},
    "inception_v3": {"init_weights": True},
    "fcos": _ONE_STAGE,
    "retinanet": _ONE_STAGE,
    "fasterrcnn": _TWO_STAGE,
    "maskrcnn": _TWO_STAGE,
    "keypointrcnn": _TWO_STAGE,
    "ssd300": {"topk_candidates": 100},
    "ssdlite320": {"topk_candidates": 100},
}
#: Sides that the SSDs resize to and that cannot be chosen.
FIXED_SIDE = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}


@dataclass(frozen=True)
class Case:
    """One model: `size` is what it is converted at, `least` the documented minimum."""

    name: str
    family: str
    size: tuple[int, ...]
    least: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Return the model with random weights, the same at every call, in eval mode."""
        torch.manual_seed(0)
        builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(self.name)
        more = {"weights_backbone": None} if self.family in ("detection", "segmentation") else {}
        model = builder(weights=None, **more, **self.options).eval()
        _fill_zeros(model)
        _drop_last_bias(model, self.family)
        return model

    @property
    def is_small(self) -> bool:
        """True where an image costs so little that batches of several are the cheaper choice."""
        return self.family in ("classification", "segmentation") and max(self.size) < 128

    def inputs(self, seed: int, batch: int = 1, size: tuple[int, ...] | None = None) -> tuple:
        """Return the positional arguments of one call, random by seed."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        size = size or self.size
        if self.family == "detection":  # images are numbers in 0..1, each in its own tensor
            return ([torch.rand(3, *size, generator=generator) for _ in range(batch)],)
        if self.family == "optical_flow":
            return draw(batch, 3, *size).clamp(-1, 1), draw(batch, 3, *size).clamp(-1, 1)
        return (draw(batch, 3, *size),)

    def calibration(self) -> list[tuple]:
        """Return batches like the example.

        The last maps of a small image are one pixel: ranges need 32 images, where a large image
        alone holds thousands of values of every channel.
        """
        batches, size = (4, 8) if self.is_small else (2, 1)
        return [self.inputs(seed, size) for seed in range(1, 1 + batches)]


def _fill_zeros(model: nn.Module) -> None:
    """Draw weights that are created zero, as the heads of ViT: their answer would be no signal."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(0, 0.02)


def _drop_last_bias(model: nn.Module, family: str) -> None:
    """Zero the biases that the answer ends with.

    Random weights without the statistics of training shrink the signal from layer to layer
    (EfficientNet's to 1e-15); a bias at the end would be the whole answer, whatever the input, and
    any error before it would measure as none. Without it the error is relative to the signal.
    """
    if family == "classification":
        last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    elif family == "segmentation":  # lraspp adds the answers of two
        last = [m for m in model.classifier.modules() if isinstance(m, nn.Conv2d)]
    else:
        return
    for module in last:
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _documented(name: str) -> tuple[tuple[int, int], int]:
    """Return (height and width, frames) that torchvision documents as the least."""
    weights = list(torchvision.models.get_model_weights(name))
    meta = weights[0].meta if weights else {}
    return meta.get("min_size") or (1, 1), meta.get("min_temporal_size") or 1


def _case(name: str, family: str) -> Case:
    least: tuple[int, ...]
    least, frames = _documented(name)
    options = next((o for prefix, o in OPTIONS.items() if name.startswith(prefix)), {})
    if name.startswith("vit_"):
        least = (224, 224)  # the documented sizes are those of the largest weights
    size: tuple[int, ...] = tuple(max(side, FLOOR) for side in least)
    if family == "video":
        # torchvision documents 1 frame for what it did not check; mvit and s3d say their own.
        size, least = (max(frames, FLOOR_FRAMES), *size), (frames, *least)
    if family == "detection":
        size = least = 2 * (FIXED_SIDE.get(name, DETECTOR_SIDE),)
    return Case(name, family, size, least, options)


FAMILIES = {
    "classification": torchvision.models,
    "segmentation": torchvision.models.segmentation,
    "detection": torchvision.models.detection,
    "video": torchvision.models.video,
    "optical_flow": torchvision.models.optical_flow,
}
#: torchvision's `quantization` models are int8 already and are not listed: a float model is wanted.
CASES: tuple[Case, ...] = tuple(
    _case(name, family)
    for family, module in FAMILIES.items()
    for name in torchvision.models.list_models(module=module)
)
