"""The files of right answers that stress.cpp reads."""

from __future__ import annotations

import case_files as writer
import pytest

from fastinfer import runtime


@pytest.fixture(scope="session")
def case_files(tmp_path_factory):
    """Return the path of the cases' file for scalar and the best ISA, by name."""
    folder = tmp_path_factory.mktemp("cases")
    paths = {isa: folder / isa for isa in {"scalar", runtime.supported_isas()[-1]}}
    for isa, path in paths.items():
        assert writer.write(path, isa) > 0
    return paths
