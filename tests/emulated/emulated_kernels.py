"""A pytest plugin: `fastinfer._C` is the build whose AVX-512 kernels are emulated.

Only tests of emulated instruction sets run: the suite around runs the others, on the build that
users have, of which all but the emulated kernels and the choice among kernels is here too.
"""

from __future__ import annotations

import os
import re
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

#: Instruction sets that the build emulates, as tests name them first among their parameters.
ISAS = ("avx512", "avx512vnni", "amx")
#: Names the file for the tests that are left out.
LEFT_OUT = "FASTINFER_EMULATED_LEFT_OUT"


def pytest_collection_modifyitems(config, items) -> None:
    """Leave out tests of what is not emulated; their names go to the file of LEFT_OUT."""
    emulated = re.compile(rf"\[({'|'.join(ISAS)})-")
    left_out = [item for item in items if not emulated.search(item.name)]
    items[:] = [item for item in items if emulated.search(item.name)]
    config.hook.pytest_deselected(items=left_out)
    names = "".join(f"{item.nodeid}\n" for item in left_out)
    Path(os.environ[LEFT_OUT]).write_text(names)
