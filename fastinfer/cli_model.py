"""What the command line calls a model and its inputs: MODULE:FACTORY and 1x3x224x224[:DTYPE]."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

#: Integer inputs are random numbers below this; every usual vocabulary is larger.
INTEGER_BOUND = 100
_FLOATS = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_INTEGERS = {"int64": torch.int64, "int32": torch.int32, "uint8": torch.uint8}


class UsageError(Exception):
    """The command line asks for something that cannot be; the text is one line."""


def device_named(text: str) -> torch.device:
    """Return the device that "cpu", "cuda" or "cuda:1" names.

    Raises:
        UsageError: it is none of these, or torch sees no such GPU.
    """
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"expected --device cpu, cuda or cuda:1, got {text}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError(f"expected --device of a GPU that torch sees, got {text}: it sees {count}")
    return device


def load_model(target: str) -> nn.Module:
    """Return the module that "package.module:attribute" names or makes, in eval mode.

    An attribute that is a module is taken as it is; anything else is called without arguments.

    Raises:
        UsageError: the text has another form, or nothing of that name makes a module.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"expected MODULE:FACTORY such as torchvision.models:resnet18: {target}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: Any
    try:
        found = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import {target}: {error}") from error
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise UsageError(f"{target} is {type(found).__name__}, neither module nor callable")
        try:
            found = found()
        except Exception as error:
            raise UsageError(f"{target}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise UsageError(f"{target} makes {type(found).__name__}, not a torch.nn.Module")
    return found.eval()


def example_input(text: str, seed: int = 0) -> torch.Tensor:
    """Return a random tensor of the shape and dtype that "1x3x224x224[:DTYPE]" names.

    Raises:
        UsageError: the text has another form.
    """
    sizes, _, dtype = text.partition(":")
    dtype = dtype or "float32"
    try:
        shape = [int(size) for size in sizes.lower().split("x")]
    except ValueError:
        shape = []
    if not shape or min(shape) < 1:
        raise UsageError(f"expected --input SHAPE such as 1x3x224x224, got {text}")
    generator = torch.Generator().manual_seed(seed)
    if dtype in _FLOATS:
        return torch.randn(shape, generator=generator).to(_FLOATS[dtype])
    if dtype in _INTEGERS:
        values = torch.randint(0, INTEGER_BOUND, shape, generator=generator)
        return values.to(_INTEGERS[dtype])
    known = ", ".join([*_FLOATS, *_INTEGERS])
    raise UsageError(f"expected --input SHAPE:DTYPE with a dtype of {known}, got {dtype}")
