"""The AVX-512 kernels equal the reference on any CPU: plain C++ builds, in ops and whole models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "emulated"
SUITE = ["tests/ops", "tests/types", "tests/test_bit_equality.py"]


def run(command: list[str], **environment: str) -> str:
    """Return what the command prints; fails the test with it when the command fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-8000:]}")
    return done.stdout


def newest_source() -> int:
    sources = [ROOT / "setup.py", *HERE.glob("*.h"), *ROOT.glob("csrc/**/*.*")]
    return max(path.stat().st_mtime_ns for path in sources)


@pytest.fixture(scope="module")
def emulated_build():
    """Build the extension with emulated AVX-512 under FOLDER unless the sources' time is known."""
    stamp = FOLDER / ".built"
    newest = newest_source()
    if stamp.exists() and stamp.stat().st_mtime_ns == newest:
        return
    # In the folder of `make build`: ninja takes its objects of the units that are not emulated.
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(FOLDER)]
    run(command, FASTINFER_EMULATED="1")
    stamp.touch()
    os.utime(stamp, ns=(newest, newest))


@pytest.fixture(scope="module")
def outcomes(emulated_build, tmp_path_factory) -> dict[str, str]:
    """Return how every test of SUITE ended on the emulated build; none failed.

    Tests of instruction sets that are not emulated are "left out".
    """
    folder = tmp_path_factory.mktemp("emulated")
    report, left_out = folder / "report.xml", folder / "left_out.txt"
    command = [sys.executable, "-m", "pytest", "-p", "emulated_kernels", f"--junitxml={report}"]
    path = os.pathsep.join([str(HERE), str(ROOT)])
    command += ["-p", "no:cacheprovider", *SUITE]
    run(command, PYTHONPATH=path, FASTINFER_EMULATED_LEFT_OUT=str(left_out))
    names = [line.partition("::") for line in left_out.read_text().splitlines()]
    found = {f"{file.removesuffix('.py').replace('/', '.')}::{name}" for file, _, name in names}
    return dict.fromkeys(found, "left out") | {
        f"{case.get('classname')}::{case.get('name')}": next(
            (child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed"
        )
        for case in ElementTree.parse(report).iter("testcase")
    }


@pytest.mark.parametrize("isa", ["avx512", "avx512vnni", "amx"])
def test_op_suite(isa, outcomes):
    scalar = {name for name in outcomes if "[scalar-" in name}
    assert len(scalar) > 1000
    for name in scalar:
        assert outcomes[name] == "left out"
        assert outcomes[name.replace("[scalar-", f"[{isa}-")] == "passed"


def test_emulation_is_what_avx2_does(tmp_path):
    from fastinfer import runtime

    if "avx2" not in runtime.supported_isas():
        pytest.skip("compares with AVX2, which this CPU lacks")
    program = tmp_path / "check_emulation"
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-mavx2", "-mfma"]
    run([get_cxx_compiler(), *flags, str(HERE / "check_emulation.cpp"), "-o", str(program)])
    run([str(program)])
