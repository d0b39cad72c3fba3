"""guard_accuracy: what harms most goes back to float, until the model is good enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastinfer.compress.quantize.bias_correction import (
    SimulationResult,
    correct_biases,
    simulate,
)
from fastinfer.compress.quantize.calibrate import Calibrator
from fastinfer.compress.quantize.decide import plan_layers
from fastinfer.compress.quantize.pipeline import refresh_rows
from fastinfer.compress.quantize.power import Power
from fastinfer.compress.quantize.simulate import SimulatedLayer, simulate_between
from fastinfer.config import Config
from fastinfer.program import Program

_INT8 = ("int8", "int8-dynamic", "int8-weight-only")
MIN_SQNR_DB = {"auto": 20.0}
DEFAULT_MIN_SQNR_DB = 10.0
#: This share of the samples tells whether a plan is far off, which spares the others: with random
#: weights six of the seven plans of ResNet-50 are. It converts in 7 s with 8 images, without this
#: in 10.5 s (2026-11).
FEW = 1 / 4
#: With fewer samples than this all are looked at: one could be unlike the others.
MIN_FEW = 2
#: A plan is far off when its SQNR on few samples is lower than wanted by more.
FAR_OFF_DB = 2.0


def local_noise(program: Program, calibrator: Calibrator) -> dict[str, float]:
    """Return each int8 layer's own SQNR in dB, given float inputs of the first sample."""
    result: dict[str, float] = {}
    handles = []
    for node, layer in calibrator.layers.items():
        plan = program.plan[str(node.target)]
        if plan.precision not in _INT8:
            continue
        simulated = SimulatedLayer(layer, plan, program.weights)

        def hook(module: nn.Module, args: object, output: object, s=simulated, n=node) -> None:  # type: ignore[no-untyped-def]
            result[str(n.target)] = _sqnr_db(output, s(*args))  # type: ignore[arg-type]

        handles.append(layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            program.graph_module(*calibrator.samples[0])
    finally:
        for handle in handles:
            handle.remove()
    return result


def _sqnr_db(wanted: Tensor, got: Tensor) -> float:
    power = Power()
    power.add(wanted, got)
    return power.db


class _BetweenNoise(fx.Interpreter):
    """Runs the float graph; `sqnr_db` gets the SQNR of every int8 operation between layers.

    Max pooling rounds nothing of its own: in float it would only move the border.
    """

    def __init__(self, program: Program, calibrator: Calibrator) -> None:
        super().__init__(program.graph_module)
        self.sqnr_db: dict[str, float] = {}
        self._plans = program.between
        self._betweens = calibrator.betweens
        #: An operation's inputs may be gone when the activation behind it runs.
        self._starts = {
            between.inner or node: node
            for node, between in calibrator.betweens.items()
            if node.name in program.between and between.spec.kind != "max_pool"
        }
        self._inputs: dict[fx.Node, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        end = self._starts.get(n)
        if end is not None:
            self._inputs[end] = [self.env[source] for source in self._betweens[end].inputs]
        value = super().run_node(n)
        xs = self._inputs.pop(n, None)
        if xs is not None:
            got = simulate_between(self._betweens[n].spec, self._plans[n.name], xs, value)
            self.sqnr_db[n.name] = _sqnr_db(value, got)
        return value


def between_noise(program: Program, calibrator: Calibrator) -> dict[str, float]:
    """Return each int8 operation's own SQNR in dB, given float inputs of the first sample."""
    if not program.between:
        return {}
    run = _BetweenNoise(program, calibrator)
    with torch.no_grad():
        run.run(*calibrator.samples[0])
    return run.sqnr_db


def _assess(
    program: Program, calibrator: Calibrator, config: Config, count: int | None = None
) -> tuple[Program, SimulationResult]:
    """Return the program, biases corrected, and its errors, on the first `count` samples."""
    samples, results = calibrator.samples[:count], calibrator.results[:count]
    if config.bias_correction:
        return correct_biases(program, samples, results)
    return program, simulate(program, samples, results)


def _assess_until_clear(
    program: Program, calibrator: Calibrator, config: Config, wanted: float
) -> tuple[Program, SimulationResult, bool]:
    """Return what `_assess` does and True; of a plan that is far off, of few samples and False."""
    count = int(len(calibrator.samples) * FEW)
    if count >= MIN_FEW:
        assessed = _assess(program, calibrator, config, count)
        if assessed[1].output_sqnr_db < wanted - FAR_OFF_DB:
            return *assessed, False
    return *_assess(program, calibrator, config), True


def guard_accuracy(
    program: Program,
    calibrator: Calibrator,
    config: Config,
    *,
    evaluate: Callable[[nn.Module], float] | None = None,
    max_drop: float | None = None,
    build: Callable[[Program], nn.Module] | None = None,
    original: nn.Module | None = None,
) -> Program:
    """Return the program, biases corrected, with as much in int8 as the accuracy allows.

    Layers and operations between them go back to float, those with the most noise of their own
    first.

    The measure is the SQNR of the outputs on calibration samples; with evaluate (higher is better)
    and max_drop also evaluate(original) - evaluate(build(program)) <= max_drop.
    """
    if not any(p.precision in _INT8 for p in program.plan.values()):
        return program
    wanted = config.min_sqnr_db
    if wanted is None:
        wanted = MIN_SQNR_DB.get(config.precision, DEFAULT_MIN_SQNR_DB)
    baseline = None
    if evaluate is not None and max_drop is not None:
        assert build is not None and original is not None
        baseline = float(evaluate(original))
    step, held = 1, frozenset[str]()
    while True:
        program, result, is_of_all = _assess_until_clear(program, calibrator, config, wanted)
        reason = ""
        if not result.output_sqnr_db >= wanted:
            reason = f"output SQNR {result.output_sqnr_db:.1f} dB < {wanted:.0f} dB with it in int8"
        elif baseline is not None:
            assert evaluate is not None and build is not None and max_drop is not None
            drop = baseline - float(evaluate(build(program)))
            if not drop <= max_drop:  # NaN is no accuracy
                reason = f"evaluate drops by {drop:.4g} > max_drop {max_drop:.4g} with it in int8"
        if not reason:
            break
        # Layers are named by module, operations by node; True marks an operation.
        noise = {(n, False): db for n, db in local_noise(program, calibrator).items()}
        noise |= {(n, True): db for n, db in between_noise(program, calibrator).items()}
        worst = sorted(noise, key=noise.__getitem__)[:step]
        if not worst:
            if not is_of_all:
                program, result = _assess(program, calibrator, config)
            break
        held |= {name for name, is_between in worst if is_between}
        chosen = {}
        for node in calibrator.layers:
            entry = program.plan[str(node.target)]
            chosen[node] = (entry.precision, entry.reason)
            if (str(node.target), False) in worst:
                chosen[node] = ("fp32", reason)
        program = plan_layers(program, calibrator, config, chosen, held)
        step *= 2
    if held:
        program.report.note(f"float for accuracy, between layers: {', '.join(sorted(held))}")
    times = {row.name: row for row in program.report.layers}
    refresh_rows(program, calibrator, result.layer_sqnr_db)
    assert len(times) == len(program.report.layers)
    program.report.sqnr_db = result.output_sqnr_db
    return program
