"""Bytes that survive a crash of the machine once they are written."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, data: bytes, *, replaces: bool = False) -> None:
    """Write a file and wait until the disk has it.

    Raises:
        FileExistsError: there is one already, unless it is one that `replaces`.
        OSError: it cannot be written.
    """
    with path.open("wb" if replaces else "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the disk has the folder's names: of files that were made or renamed in it."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, nor needs to be
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
