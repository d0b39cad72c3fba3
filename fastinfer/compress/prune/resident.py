"""Memory that the process holds, for a bound that can be printed."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Return the process's resident bytes now; where that cannot be read, its highest so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The highest of what `look` saw, beyond what was there at first."""

    def __init__(self) -> None:
        self._start = self._highest = resident_bytes()

    def look(self) -> None:
        """Take memory held now into account."""
        self._highest = max(self._highest, resident_bytes())

    @property
    def bytes(self) -> int:
        """Bytes beyond the start."""
        return self._highest - self._start
