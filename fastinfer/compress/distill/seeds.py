"""Random numbers of a step that depend on nothing but the step."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten_with_path


def seed_everything(*place: int) -> None:
    """Seed torch, numpy and random from these numbers, as (seed, epoch, batch).

    What a step draws (dropout, augmentation in this process) is then the same in a run that was
    killed and resumed, which therefore has no random state to keep.
    """
    digest = hashlib.sha256(repr(place).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    np.random.seed(int.from_bytes(digest[8:12], "little"))
    random.seed(int.from_bytes(digest[12:20], "little"))


@contextlib.contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Give the state of torch's, numpy's and random's generators back at the end."""
    devices = [device] if device.type == "cuda" else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def batch_digest(batch: Any) -> str:
    """Return a checksum of a batch's tensors and of the text of what else is in it."""
    digest = hashlib.sha256()
    leaves, _ = tree_flatten_with_path(batch)
    for path, leaf in leaves:
        digest.update(repr(path).encode())
        if isinstance(leaf, Tensor):
            digest.update(tensor_bytes(leaf))
        elif isinstance(leaf, (str, int, float, bool, type(None))):
            digest.update(repr(leaf).encode())
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return a tensor's bytes in row-major order, whatever its dtype, device and strides."""
    plain = tensor.detach().cpu().contiguous().view(-1)
    return plain.view(torch.uint8).numpy().tobytes()
