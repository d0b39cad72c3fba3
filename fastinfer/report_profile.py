"""What a converted model's call costs, step by step of its regions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from fastinfer import runtime
from fastinfer.engine import RegionModule
from fastinfer.nn.converted_module import region_modules
from fastinfer.types.call import call, tensors_of
from fastinfer.types.recorded import RecordedCall, RecordedValue
from fastinfer.types.region import LAYERS, Step, buffers_of, multiply_adds

#: Calls before those that count: plans are made, threads woken, caches filled.
WARMUP = 2


@dataclass(frozen=True)
class ProfiledStep:
    """A step in one call of its region.

    us: microseconds on the first thread, from the end of the step before, waiting included;
    kernel_us: of the thread that was in its kernel for longest. multiply_adds is 0 for what is no
    layer. Bytes are those of the values and weights, each counted once, wherever they come from.
    """

    name: str
    kind: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    us: float
    kernel_us: float
    multiply_adds: int
    bytes_read: int
    bytes_written: int

    @property
    def gb_per_s(self) -> float:
        """Bytes read and written, 10^9 a second."""
        return (self.bytes_read + self.bytes_written) / max(self.us, 1e-9) / 1e3

    @property
    def gops(self) -> float:
        """Operations, 10^9 a second; a multiply-add is two."""
        return 2 * self.multiply_adds / max(self.us, 1e-9) / 1e3


@dataclass(frozen=True)
class ProfiledRegion:
    """A region on inputs of one size.

    part: the submodule it lies in, "" for the whole model. It ran `calls` times in a call of the
    model, in `slices` slices of the batch, for `us` microseconds each time; engine_us of these its
    kernels did not take. arena_bytes: memory of the values between its steps, if the batch runs as
    a whole; arena_lower_bound: the most that is alive at one step.
    """

    part: str
    calls: float
    slices: int
    us: float
    engine_us: float
    arena_bytes: int
    arena_lower_bound: int
    steps: tuple[ProfiledStep, ...]


@dataclass(frozen=True)
class Profile:
    """Medians of `runs` calls of a model on one input.

    wall_us: microseconds a call takes, measured while steps are timed; outside_us: those in which
    no region ran. peak_gops: what the int8 kernels could reach on these threads
    (`runtime.peak_gops`), measured right after the calls; None for the scalar kernels.
    """

    wall_us: float
    outside_us: float
    runs: int
    threads: int
    isa: str
    peak_gops: float | None
    regions: tuple[ProfiledRegion, ...]

    def share(self, step: ProfiledStep, region: ProfiledRegion) -> float:
        """Return the share of a call's time that a step of a region takes, 0 to 1."""
        return step.us * region.calls / self.wall_us

    def peak_share(self, step: ProfiledStep) -> float | None:
        """Return a layer's rate by the peak's, 0 to 1; None for what is no layer."""
        return step.gops / self.peak_gops if self.peak_gops and step.multiply_adds else None

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON-able data."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table for people."""
        from fastinfer.report_profile_text import render_profile

        return render_profile(self)


def profile_model(model: nn.Module, inputs: Any, runs: int) -> Profile:
    """Return the profile of a converted model; see `Report.profile`."""
    if not isinstance(runs, int) or isinstance(runs, bool):
        raise TypeError(f"profile: runs: expected an integer, got {runs!r}")
    if runs < 1:
        raise ValueError(f"profile: runs: expected a number of calls >= 1, got {runs}")
    device = getattr(model, "device", None)
    if isinstance(device, torch.device) and device.type != "cpu":
        raise ValueError(
            f"profile: expected a model on cpu, whose steps the engine records, got one on {device}"
            "; use torch.profiler there, or call model.cpu()"
        )
    regions = {
        _key(module.program, [(t.data_ptr(), t.nbytes) for t in module.packed()]): (path, module)
        for path, module in region_modules(model)
        if isinstance(module, RegionModule)
    }
    if not regions:
        raise ValueError(
            "profile: expected a model with regions that the engine runs, got one without: "
            f"{_why_none(model)}"
        )
    walls, outside = [], []
    groups: dict[Any, list[RecordedCall]] = {}
    with torch.inference_mode():
        _check(model, inputs)
        for _ in range(WARMUP - 1):
            call(model, inputs)
        for _ in range(runs):
            with runtime.recording() as calls:
                start = time.perf_counter()
                call(model, inputs)
                walls.append(time.perf_counter() - start)
            outside.append(walls[-1] - sum(one.seconds for one in calls))
            for one in calls:
                groups.setdefault((_key(one.program, one.weights), one.values), []).append(one)
    threads = torch.get_num_threads()
    return Profile(
        wall_us=1e6 * median(walls),
        outside_us=1e6 * median(outside),
        runs=runs,
        threads=threads,
        isa=runtime.isa(),
        peak_gops=runtime.peak_gops(threads),
        regions=tuple(_region(*regions[key], calls, runs) for (key, _), calls in groups.items()),
    )


def _key(program: str, weights: Sequence[tuple[int, int]]) -> tuple[Any, ...]:
    """Return what tells regions apart: two may have one text, and each has its own weights."""
    return program, tuple(weights)


def _why_none(model: nn.Module) -> str:
    """Return what the model's report says of it."""
    report: Any = model._report
    reasons = [note for note in report.notes if note.startswith("engine not used")]
    if reasons:
        return "; ".join(reasons)
    if report.path in ("modules", "original"):
        return f"it was converted on the path {report.path!r}; print the report for the reasons"
    return "no two int8 steps follow each other; print the report for what stayed float"


def _check(model: nn.Module, inputs: Any) -> None:
    """Run the model once; raise ValueError unless it takes the inputs and runs a region on them."""
    shapes = [list(t.shape) for t in tensors_of(inputs)]
    with runtime.recording() as calls:
        try:
            call(model, inputs)
        except Exception as error:  # whatever the model's own code raises
            raise ValueError(
                f"profile: inputs: expected what the model takes, got tensors {shapes}: "
                f"{type(error).__name__}: {error}"
            ) from error
    if not calls:
        raise ValueError(
            "profile: inputs: expected a call that a region answers, got tensors "
            f"{shapes} for which none ran: the graph does not hold for such sizes, so the float "
            "model answered, or a forward hook makes the layers run one by one"
        )


def _region(
    path: str, module: RegionModule, calls: Sequence[RecordedCall], runs: int
) -> ProfiledRegion:
    """Return the profile of one region's calls, all on values of the same shapes."""
    first = calls[0]
    engine = [c.seconds - sum(step.kernel_seconds for step in c.steps) for c in calls]
    made = dict(zip((step.out for step in module.region.steps), module.region.steps, strict=True))
    names = dict(zip(made, module.names, strict=True))
    # A row of what this makes is longer than that of what it reads.
    quantized = {s.out: s.reads[0] for s in first.steps if s.kind == "quantize_rows"}
    steps = []
    for i, step in enumerate(first.steps):
        reads = [first.values[value] for value in step.reads]
        known = made.get(step.out)
        steps.append(
            ProfiledStep(
                name=_full_name(path, names[step.out], step.kind) if known else "input",
                kind=step.kind,
                inputs=tuple(value.shape for value in reads),
                output=first.values[step.out].shape,
                us=1e6 * median(c.steps[i].seconds for c in calls),
                kernel_us=1e6 * median(c.steps[i].kernel_seconds for c in calls),
                multiply_adds=_multiply_adds(
                    known,
                    first.values[quantized.get(step.reads[0], step.reads[0])],
                    first.values[step.out],
                ),
                bytes_read=sum(value.bytes for value in reads)
                + sum(first.weights[b][1] for b in (buffers_of(known) if known else ())),
                bytes_written=first.values[step.out].bytes,
            )
        )
    return ProfiledRegion(
        part=path,
        calls=len(calls) / runs,
        slices=first.slices,
        us=1e6 * median(c.seconds for c in calls),
        engine_us=1e6 * median(engine),
        arena_bytes=first.arena_bytes,
        arena_lower_bound=first.arena_lower_bound,
        steps=tuple(steps),
    )


def _full_name(path: str, name: str, kind: str) -> str:
    """Return a step's name in the whole model: layers of a submodule's graph have theirs."""
    is_layer = kind in LAYERS
    return name if is_layer or not path else f"{path}.{name}"


def _multiply_adds(step: Step | None, x: RecordedValue, out: RecordedValue) -> int:
    return multiply_adds(step, x.shape, out.shape) if step else 0
