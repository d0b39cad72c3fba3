"""What takes long and comes out the same: trained weights, float answers; kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

VARIABLE = "FASTINFER_TASKS_CACHE"


def cache_folder() -> Path:
    """Return $FASTINFER_TASKS_CACHE, or build/tasks of this checkout, which git ignores."""
    default = Path(__file__).resolve().parents[2] / "build" / "tasks"
    return Path(os.environ.get(VARIABLE, default))


def cached_tensors(
    name: str, recipe: object, make: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return what `make` returned the first time it was called with this name and recipe.

    Args:
        name: the file's name.
        recipe: everything the tensors depend on; another `repr` is another file.
        make: returns the tensors; seeded by the caller.
    """
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()[:10]
    path = cache_folder() / f"{name}-{digest}.safetensors"
    if not path.exists():
        tensors = {key: value.detach().contiguous() for key, value in make().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and moved, so that a kill leaves no half of a file.
        partial = path.with_suffix(f".{os.getpid()}")
        save_file(tensors, partial)
        partial.replace(path)
    return load_file(path)
