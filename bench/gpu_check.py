"""Builds, tests, sanitizes and measures the CUDA and Triton kernels on the GPU of this machine.

    python3 bench/gpu_check.py [--only build tests bench triton models sanitize] [--commit NAME]

Needs torch 2.11 or later with CUDA, nvcc, pybind11, ninja and pytest; no network. Every stage is
one or more processes with time limits, and a stage that fails does not stop the next. Results go to
$OUT when it is set, else to bench/results, in few files, as machines that are lent bring few back:
gpu_check_<gpu>.json, a <bench>_<gpu>.json for each benchmark, and gpu_check.log with what all
processes said, one after the other.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = ("memcheck", "racecheck", "synccheck")
LAST_LINES = 25


@dataclass
class StageResult:
    """How a stage ended: "passed", "failed", "timed out" or "skipped: why"."""

    stage: str
    status: str
    seconds: float
    last: str


@dataclass(frozen=True)
class Command:
    """One process of a stage, and the most seconds it may take."""

    name: str
    arguments: list[str]
    limit: float


def environment(archs: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bench'}",
        "PYTHONUNBUFFERED": "1",
        "MAX_JOBS": str(os.cpu_count() or 1),
        "FASTINFER_CUDA_ARCHS": archs,
    }


def run_command(command: Command, env: dict[str, str], log: Path) -> StageResult:
    """Run a process and all it starts; its output is appended to a log, the end to the screen."""
    began = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n=== {command.name}\n")
        file.flush()
        start = file.tell()
        process = subprocess.Popen(
            command.arguments, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=command.limit)
            status = "passed" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = "timed out"
    said = log.read_bytes()[start:].decode("utf-8", errors="replace")
    lines = without_places(said).splitlines()
    kept = 1 if status == "passed" else LAST_LINES
    last = "\n".join(lines if command.name.endswith("bench") else lines[-kept:])
    return StageResult(command.name, status, round(time.monotonic() - began, 1), last)


def without_places(text: str) -> str:
    """Return text with paths relative to the repository, and others without their folders."""
    text = text.replace(f"{ROOT}{os.sep}", "")
    return re.sub(r"(?<![\w.%-])/(?:[\w.+-]+/)+(?=[\w.+-])", "", text)


def gpu_name() -> str:
    """Return the GPU's name in file names: h100."""
    import torch

    words = torch.cuda.get_device_name().removeprefix("NVIDIA ").split()
    return re.sub(r"\W", "", words[0]).lower()


def device_facts() -> dict[str, object]:
    """Return what torch and the tools say of this machine; "missing" names what is not there."""
    facts: dict[str, object] = {"python": sys.version.split()[0], "missing": []}
    missing: list[str] = []
    try:
        import torch
    except ImportError as error:
        return {**facts, "missing": [f"torch ({error})"]}
    facts["torch"], facts["cuda"] = torch.__version__, torch.version.cuda
    if torch.version.cuda is None:
        missing.append("a torch with CUDA")
    elif not torch.cuda.is_available():
        missing.append("a GPU that torch can use")
    else:
        major, minor = torch.cuda.get_device_capability()
        facts["gpu"], facts["capability"] = torch.cuda.get_device_name(), f"{major}.{minor}"
        if major < 8:
            missing.append("a GPU of compute capability 8.0 or later")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        missing.append("nvcc")
    else:
        said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False)
        release = re.search(r"release ([\d.]+)", said.stdout)
        facts["nvcc"] = release[1] if release else nvcc
        os.environ["PATH"] = f"{Path(nvcc).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    for module in ("pybind11", "ninja", "pytest", "setuptools", "rich", "safetensors"):
        try:
            __import__(module)
        except ImportError:
            missing.append(module)
    facts["missing"] = missing
    return facts


def build_commands(_folder: Path) -> list[Command]:
    return [Command("build", [sys.executable, "setup.py", "build_ext", "--inplace"], 240)]


def pytest_arguments(*what: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *what, "-vv", "--tb=short", "--maxfail=40", "-rs", "-p",
            "no:cacheprovider", "--durations=5"]  # fmt: skip


def test_commands(_folder: Path) -> list[Command]:
    return [Command("tests", pytest_arguments("tests/cuda"), 150)]


def triton_commands(folder: Path) -> list[Command]:
    if importlib.util.find_spec("triton") is None:
        return []
    kernels = ROOT / "tests" / "kernels"
    names = ("test_row_kernels.py", "test_products.py", "test_fp8.py", "test_bound.py")
    # Most of a test's time is compiling on one core.
    shares = [sys.executable, "bench/shards.py", str(min(os.cpu_count() or 1, 8))]
    tests = shares + pytest_arguments(*(str(kernels / name) for name in names))[3:]
    out = folder / f"triton_bench_{gpu_name()}.json"
    bench = [sys.executable, "bench/bench_triton.py", "--out", str(out)]
    return [Command("triton_tests", tests, 120), Command("triton_bench", bench, 150)]


def sanitize_commands(_folder: Path) -> list[Command]:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return []
    return [
        Command(
            f"sanitize_{name}",
            [tool, "--tool", name, "--error-exitcode", "9", "--print-limit", "5", sys.executable,
             "bench/gpu_small.py"],
            75,
        )
        for name in SANITIZERS
    ]  # fmt: skip


def bench_commands(folder: Path) -> list[Command]:
    out = folder / f"gpu_bench_{gpu_name()}.json"
    arguments = [sys.executable, "bench/bench_gpu.py", "--out", str(out)]
    between = [sys.executable, "bench/bench_gpu_between.py", "--out",
               str(folder / f"gpu_between_{gpu_name()}.json")]  # fmt: skip
    sparse = [sys.executable, "bench/bench_gpu_sparse.py", "--out",
              str(folder / f"gpu_sparse_{gpu_name()}.json")]  # fmt: skip
    return [
        Command("bench", arguments, 150),
        Command("between_bench", between, 40),
        Command("sparse_bench", sparse, 60),
    ]


def model_commands(folder: Path) -> list[Command]:
    if importlib.util.find_spec("torchvision") is None:
        return []
    out = folder / f"gpu_models_{gpu_name()}.json"
    arguments = [sys.executable, "bench/bench_gpu_models.py", "--out", str(out)]
    return [Command("models_bench", [*arguments, "--seconds", "240"], 265)]


STAGES: dict[str, Callable[[Path], list[Command]]] = {
    "build": build_commands,
    "tests": test_commands,
    "bench": bench_commands,
    "triton": triton_commands,
    "models": model_commands,
    "sanitize": sanitize_commands,
}
#: Why a stage has no commands.
MISSING = {
    "triton": "Triton not found",
    "models": "torchvision not found",
    "sanitize": "compute-sanitizer not found",
}


def run_stages(
    stages: list[str], folder: Path, archs: str, limit: float, keep: Callable[[StageResult], None]
) -> None:
    """Run the stages in order; one that would begin after `limit` seconds is skipped.

    keep: what is done with each result as soon as it is there.
    """
    log, began = folder / "gpu_check.log", time.monotonic()
    log.write_text("", encoding="utf-8")
    for stage in stages:
        commands = STAGES[stage](folder)
        if not commands:
            keep(StageResult(stage, f"skipped: {MISSING[stage]}", 0, ""))
        for command in commands:
            left = limit - (time.monotonic() - began)
            if left < 10:
                keep(StageResult(command.name, "skipped: no time left", 0, ""))
                continue
            allowed = Command(command.name, command.arguments, min(command.limit, left))
            result = run_command(allowed, environment(archs), log)
            print(f"=== {result.stage}: {result.status} in {result.seconds} s\n{result.last}\n",
                  flush=True)  # fmt: skip
            keep(result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(STAGES), metavar="STAGE",
                        help=f"of {', '.join(STAGES)}; default: all")  # fmt: skip
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--seconds", type=float, default=500, help="for all stages together")
    options = parser.parse_args()
    facts = device_facts()
    print(json.dumps(facts), flush=True)
    if facts["missing"]:
        print("gpu_check: missing: " + ", ".join(map(str, facts["missing"])))
        return 2
    if options.commit:
        os.environ["FASTINFER_COMMIT"] = options.commit  # for the benchmark's own JSON
    folder = Path(os.environ.get("OUT") or ROOT / "bench" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    archs = "90a" if facts["capability"] == "9.0" else "80"
    stages = [s for s in STAGES if options.only is None or s in options.only]
    results: list[StageResult] = []

    def keep(result: StageResult) -> None:
        results.append(result)
        report = {"commit": options.commit, **facts, "stages": [asdict(r) for r in results]}
        text = json.dumps(report, indent=1) + "\n"
        (folder / f"gpu_check_{gpu_name()}.json").write_text(text, encoding="utf-8")

    run_stages(stages, folder, archs, options.seconds, keep)
    for result in results:
        print(f"{result.stage:20} {result.status:24} {result.seconds:7.1f} s")
    bad = [r for r in results if r.status in ("failed", "timed out")]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
