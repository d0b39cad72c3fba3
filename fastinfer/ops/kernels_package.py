"""Importing fastinfer.kernels also where it is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_kernels() -> ModuleType:
    """Return the package fastinfer.kernels, which can be imported from by its name afterwards.

    An installed fastinfer has it; in a source tree the folder stands beside the package.

    Raises:
        ModuleNotFoundError: it is in neither place.
    """
    name = "fastinfer.kernels"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        missing = error
    folder = Path(__file__).resolve().parents[2] / "kernels"
    if not (folder / "__init__.py").exists():
        raise missing
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
