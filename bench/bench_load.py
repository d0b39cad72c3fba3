"""How long saved models take to load: python bench/bench_load.py.

A time is of fastinfer.load alone, in a process that has imported fastinfer; the first load of the
process is a row of its own. The file is in the page cache. Answers are compared bit for bit first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import results_path, show, write_json
from random_models import random_model

import fastinfer
from fastinfer.config import Config
from fastinfer.measure import fixed_threads

MODELS = ("mobilenet_v2", "resnet50")
BATCHES = (1, 3)


def bench_model(name: str, form: str, folder: Path, runs: int) -> dict[str, Any]:
    """Return a row: seconds to convert, bytes saved, milliseconds to load.

    Raises:
        AssertionError: the loaded model answers with other bits, or saved again is other bytes.
    """
    model, calibration = random_model(name)
    # Random weights say nothing about accuracy, so no layer returns to float for it.
    config = Config("int8", min_sqnr_db=float("-inf"))
    start = time.perf_counter()
    fast = fastinfer.convert(model, calibration[:1], config=config, calibration=[calibration[:4]])
    convert_s = time.perf_counter() - start
    suffix = ".fastinfer" if form == "file" else ""
    path, again = folder / f"{name}{suffix}", folder / f"{name}_again{suffix}"
    fastinfer.save(fast, path)
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        loaded = fastinfer.load(path)
        times.append(1e3 * (time.perf_counter() - start))
    for batch in BATCHES:
        x = torch.randn(batch, *calibration.shape[1:])
        if not torch.equal(fast(x), loaded(x)):
            raise AssertionError(f"{name}: the loaded model answers batch {batch} with other bits")
    fastinfer.save(loaded, again)
    if _contents(path) != _contents(again):
        raise AssertionError(f"{name}: the loaded model was saved as another artifact")
    first, later = times[0], sorted(times[1:])
    return {
        "model": name,
        "form": form,
        "convert s": convert_s,
        "MB": sum(map(len, _contents(path).values())) / 1e6,
        "first load ms": first,
        "load ms": statistics.median(later),
        "least ms": later[0],
        "most ms": later[-1],
        "runs": runs,
    }


def _contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=MODELS, nargs="+", metavar="MODEL", help="default: all")
    parser.add_argument("--form", choices=("file", "directory"), default="file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all models ran")
    options = parser.parse_args()
    if options.out is None and options.only is None:
        options.out = results_path("bench_load")
    with (
        fixed_threads(options.threads),
        torch.inference_mode(),
        tempfile.TemporaryDirectory() as folder,
    ):
        rows = [
            bench_model(name, options.form, Path(folder), options.runs)
            for name in options.only or MODELS
        ]
    show(f"{options.threads} threads, saved as a {options.form}", rows)
    write_json(options.out, threads=options.threads, rows=rows)


if __name__ == "__main__":
    main()
