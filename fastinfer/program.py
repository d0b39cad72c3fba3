"""What the stages of `convert` hand on: a graph, a plan for its layers, a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch import fx

from fastinfer.report import Report
from fastinfer.types import QuantConfig, TensorQuant
from fastinfer.types.call import CallSpec

PRECISIONS = ("int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32")


@dataclass(frozen=True)
class LayerPlan:
    """The decision for one layer, and why.

    `input`, `residual` and `output` are the affine maps of the activations (static int8 only);
    `output` is None when the layer answers in float; `preactivation` is the map before an
    activation that is a table on int8. `bias_correction` is added to the float bias, length N
    or empty.
    """

    precision: str
    quant: QuantConfig | None = None
    input: TensorQuant | None = None
    residual: TensorQuant | None = None
    output: TensorQuant | None = None
    preactivation: TensorQuant | None = None
    bias_correction: tuple[float, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"LayerPlan: expected precision in {PRECISIONS}, got {self.precision!r}"
            )


@dataclass(frozen=True)
class Program:
    """A captured model between two stages.

    The graph's placeholders are the tensor arguments of a call in order, its output is a flat
    tuple; `call` relates both to the model's own signature (None for a graph made by hand). `plan`
    maps the name of a Layer submodule to its LayerPlan; `report` collects what to tell.
    """

    graph_module: fx.GraphModule
    plan: Mapping[str, LayerPlan] = field(default_factory=lambda: MappingProxyType({}))
    report: Report = field(default_factory=Report)
    call: CallSpec | None = None

    def with_plan(self, plan: Mapping[str, LayerPlan]) -> Program:
        """Return the program with another plan."""
        return replace(self, plan=MappingProxyType(dict(plan)))
