"""A call of `convert`, checked before any work: what came, what was wanted, the fix."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.config import Config, named_ignores
from fastinfer.nn.converted_module import InferenceModule
from fastinfer.report import Report
from fastinfer.request_devices import check_devices, places_of
from fastinfer.types.call import Call
from fastinfer.types.example import example_call
from fastinfer.types.finite import all_finite

#: model -> figure, higher is better.
Evaluate = Callable[[nn.Module], float]


@dataclass
class Request:
    """The model in eval mode, the example call (args is None without one), and the other wishes.

    config names its ignored layers; report is the one to fill.
    """

    model: nn.Module
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    config: Config = field(default_factory=Config)
    calibration: Iterable[Any] | None = None
    evaluate: Evaluate | None = None
    max_drop: float | None = None
    report: Report = field(default_factory=Report)
    _baseline: float | None = None

    def accuracy(self, candidate: nn.Module) -> float:
        """Return evaluate's figure; the model's own is asked for once."""
        assert self.evaluate is not None
        if candidate is not self.model:
            return float(self.evaluate(candidate))
        if self._baseline is None:
            self._baseline = float(self.evaluate(candidate))
        return self._baseline

    @property
    def call(self) -> Call:
        """The example call."""
        assert self.args is not None
        return self.args, self.kwargs


def check_request(
    model: object,
    example_inputs: Any,
    example_kwargs: Mapping[str, Any] | None,
    config: Config,
    calibration: Iterable[Any] | None,
    evaluate: Evaluate | None,
    max_drop: float | None,
    target_ms: float | None,
) -> Request:
    """Return the request; TypeError or ValueError, naming the argument, when it cannot be met."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model: expected an nn.Module, got {type(model).__name__}")
    if isinstance(model, InferenceModule):
        raise ValueError("convert: model: it is already converted; pass the original model")
    if any(isinstance(m, InferenceModule) for m in model.modules()):
        raise ValueError(
            "convert: model: a submodule is already converted; convert the whole from originals"
        )
    report = Report()
    if isinstance(model, torch._dynamo.OptimizedModule):
        model = model._orig_mod
        report.note("the model was torch.compiled; the module inside it was converted")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("convert: model: expected eager code, got TorchScript; pass the nn.Module")
    _check_options(calibration, evaluate, max_drop, target_ms)
    _check_values_are_there(model)
    check_devices(places_of(model, (example_inputs, example_kwargs)))
    _check_finite(model)
    example = example_call("convert", example_inputs, example_kwargs)
    args, kwargs = example or (None, {})
    if args is not None:
        _check_fits(model, args, kwargs)
    if args is None and (calibration is not None or evaluate is not None or target_ms is not None):
        raise ValueError(
            "convert: calibration, evaluate and target_ms need example_inputs to capture the model"
        )
    if any(m.training for m in model.modules()):
        report.note("the model was in train mode; it was converted as in eval mode")
        model = copy.deepcopy(model).eval()
    config = named_ignores(config, model)
    return Request(model, args, kwargs, config, calibration, evaluate, max_drop, report)


def _check_options(
    calibration: Iterable[Any] | None,
    evaluate: Evaluate | None,
    max_drop: float | None,
    target_ms: float | None,
) -> None:
    if calibration is not None and not isinstance(calibration, Iterable):
        raise TypeError(
            f"convert: calibration: expected an iterable of batches, got {type(calibration)}"
        )
    if isinstance(calibration, (Tensor, str, Mapping)):
        raise TypeError(
            "convert: calibration: expected an iterable of batches, got one "
            f"{type(calibration).__name__}; put it in a list"
        )
    if evaluate is not None and not callable(evaluate):
        raise TypeError(f"convert: evaluate: expected a function of a model, got {evaluate!r}")
    if (evaluate is None) != (max_drop is None):
        given, missing = ("evaluate", "max_drop") if max_drop is None else ("max_drop", "evaluate")
        raise ValueError(f"convert: {given} was given without {missing}; they work together")
    if max_drop is not None and not max_drop >= 0:
        raise ValueError(f"convert: max_drop: expected a number >= 0, got {max_drop}")
    if target_ms is not None and not target_ms > 0:
        raise ValueError(f"convert: target_ms: expected milliseconds > 0, got {target_ms}")


def _check_values_are_there(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, nn.UninitializedParameter):
            raise ValueError(
                f"convert: parameter {name!r} is not initialized; call the model once before"
            )
        if tensor.device.type == "meta":
            raise ValueError(
                f"convert: {name!r} is on the meta device and has no values; load weights first"
            )


def _check_finite(model: nn.Module) -> None:
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise ValueError(f"convert: parameter {name!r} holds NaN or infinity")


def _check_fits(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"convert: example_inputs: the arguments do not fit forward{signature}: {error}"
        ) from error
