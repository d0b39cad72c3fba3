"""A pytest plugin: `fastinfer._C` is the build whose AVX-512 kernels are emulated."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "emulated"


class EmulatedKernels(MetaPathFinder):
    """Finds fastinfer._C under FOLDER, and nothing else."""

    def find_spec(self, fullname, path, target=None) -> ModuleSpec | None:
        if fullname != "fastinfer._C":
            return None
        return PathFinder.find_spec(fullname, [str(FOLDER / "fastinfer")])


assert "fastinfer" not in sys.modules, "fastinfer has loaded its own kernels already"
sys.meta_path.insert(0, EmulatedKernels())
