"""Whole models, random weights, eager against fastinfer: python bench/bench_models.py --out x.json.

`ratio` is eager's time divided by the row's; `SQNR dB` compares with eager on the same input, which
says little about accuracy with random weights and much about mistakes.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import show, write_json
from torch import nn

import fastinfer
from fastinfer.measure import fixed_threads, model_bytes, sqnr_db, time_interleaved

EAGER = "eager"


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(weights=None)


def _mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(1024, 1024), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(1024, 1000))


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


IMAGE, TEXT = (3, 224, 224), (128, 384)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mobilenet_v2": (partial(_torchvision, "mobilenet_v2"), IMAGE),
    "resnet18": (partial(_torchvision, "resnet18"), IMAGE),
    "resnet50": (partial(_torchvision, "resnet50"), IMAGE),
    "efficientnet_b0": (partial(_torchvision, "efficientnet_b0"), IMAGE),
    "transformer_6x384": (_transformer, TEXT),
    "mlp_1024": (_mlp, (1024,)),
}


def contenders(
    model: nn.Module, example: torch.Tensor, config: str, inductor: bool
) -> tuple[dict[str, Callable[[torch.Tensor], torch.Tensor]], float]:
    """Return what is timed, by name, and the seconds that convert took."""
    start = time.perf_counter()
    fast = fastinfer.convert(model, example, config=config)
    convert_s = time.perf_counter() - start
    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {EAGER: model}
    if example.dim() == 4:
        found["channels_last"] = copy.deepcopy(model).to(memory_format=torch.channels_last)
    if inductor:
        found["inductor"] = torch.compile(model, options={"freezing": True})
    found[f"fastinfer {config}"] = fast
    return found, convert_s


def bench_model(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per contender and batch size."""
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    models, convert_s = contenders(model, torch.randn(1, *shape), options.config, options.inductor)
    rows = []
    for batch in options.batch:
        x = torch.randn(batch, *shape)
        with torch.inference_mode():
            answers = {key: run(x) for key, run in models.items()}
            runs = {key: partial(run, x) for key, run in models.items()}
            timings = time_interleaved(runs, min_time_s=options.seconds)
        for key, timing in timings.items():
            rows.append(
                {
                    "model": name,
                    "batch": batch,
                    "variant": key,
                    "median ms": timing.median_ms,
                    "p20": timing.p20_ms,
                    "p80": timing.p80_ms,
                    "runs": timing.runs,
                    "ratio": timings[EAGER].median_ms / timing.median_ms,
                    "SQNR dB": sqnr_db(answers[EAGER], answers[key]),
                    "MB": model_bytes(models[key]) / 1e6,
                    "convert s": convert_s if key.startswith("fastinfer") else None,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=tuple(MODELS), action="append", help="default: all")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contender and batch size")
    parser.add_argument("--config", default="auto")
    parser.add_argument("--inductor", action="store_true", help="torch.compile too, minutes each")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with fixed_threads(options.threads):
        for name in options.model or MODELS:
            rows += (found := bench_model(name, options))
            show(f"{name}, {options.threads} threads", found)
    write_json(options.out, threads=options.threads, config=options.config, rows=rows)


if __name__ == "__main__":
    main()
