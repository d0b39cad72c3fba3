"""Prune a trained network while it learns from the dense one, convert both, compare.

Needs torch, torchvision and pillow, no network: digits are drawn. About 20 s on one core. The two
int8 networks are about as fast, as these layers are small; docs/sparsity.md says where zeros pay.
"""

import copy
import random

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.functional import pil_to_tensor

import fastinfer

SIDE, SPARSITY = 28, 0.875


def digits(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ([count, 1, 28, 28] float images of turned, shifted, noisy digits, [count] labels)."""
    chance = random.Random(seed)
    fonts = [ImageFont.load_default(size) for size in range(14, 23)]
    images, labels = [], []
    for _ in range(count):
        label = chance.randrange(10)
        picture = Image.new("L", (SIDE, SIDE))
        place = (chance.uniform(5, 12), chance.uniform(0, 6))
        ImageDraw.Draw(picture).text(place, str(label), fill=255, font=chance.choice(fonts))
        turned = picture.rotate(chance.uniform(-20, 20), Image.Resampling.BILINEAR)
        images.append(pil_to_tensor(turned))
        labels.append(label)
    noise = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return torch.stack(images) / 255 + 0.2 * noise, torch.tensor(labels)


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images whose label the model finds."""
    with torch.inference_mode():
        return float((model(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Train, prune in two ways, print accuracies and times."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128 * 9, 10),
    )  # fmt: skip
    train, test = digits(2000, 1), digits(1000, 2)
    loader = DataLoader(TensorDataset(*train), 64, shuffle=True, drop_last=True)
    fastinfer.finetune(
        model, loader, epochs=5, lr=3e-3, loss=lambda y, batch: F.cross_entropy(y, batch[1])
    )
    model.eval()

    # All at once, and not trained afterwards.
    at_once = copy.deepcopy(model)
    pruner = fastinfer.GradualPruner(at_once, "nm64x2", SPARSITY, fastinfer.CubicSchedule(0, 0))
    pruner.step()
    pruner.remove()

    # Little by little, while the student learns the teacher's answers; no label is needed.
    student = copy.deepcopy(model)
    schedule = fastinfer.CubicSchedule(start=0, end=2 * len(loader), every=8)
    with fastinfer.GradualPruner(student, "nm64x2", SPARSITY, schedule) as pruner:
        fastinfer.distill(
            student, model, loader, epochs=4, lr=2e-3, pruner=pruner,
            on_epoch=lambda r: print(
                f"epoch {r.epoch}: loss {r.loss:.3f}, zeros {pruner.sparsity:.1%}"
            ),
        )  # fmt: skip

    example = test[0][:16]
    fast = {
        name: fastinfer.convert(net, example, calibration=[train[0][:256]])
        for name, net in {"dense int8": model, "pruned int8": student}.items()
    }
    nets = {"dense float": model, "pruned at once": at_once, "pruned and distilled": student}
    for name, net in {**nets, **fast}.items():
        print(f"{name:22} accuracy {accuracy(net, *test):.1%}")
    print(fastinfer.benchmark({"dense float": model, **fast}, example, min_time_s=0.3))


if __name__ == "__main__":
    main()
