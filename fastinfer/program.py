"""What the stages of `convert` hand on: a graph, a plan for its layers, a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch import fx

from fastinfer.report import Report
from fastinfer.types import QuantConfig, TensorQuant
from fastinfer.types.call import CallSpec
from fastinfer.types.folded import KnownWeights

PRECISIONS = ("int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32", "fp32-sparse")


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
class BetweenPlan:
    """The affine maps of an operation between layers that runs in int8.

    `inputs` has one map for each input, per tensor all; `output` is per tensor too, or of a cat
    has a scale for each part; `preactivation` is the map before an activation that is a table
    behind an addition.
    """

    inputs: tuple[TensorQuant, ...]
    output: TensorQuant
    preactivation: TensorQuant | None = None


@dataclass(frozen=True)
class Program:
    """A captured model between two stages.

    The graph's placeholders are the tensor arguments of a call in order, its output is a flat
    tuple; `call` relates both to the model's own signature (None for a graph made by hand). `plan`
    maps the name of a Layer submodule to its LayerPlan; `between` the name of a node to its
    BetweenPlan, and what it does not name is float; `report` collects what to tell; `weights` keeps
    what quantizing the Layers' weights gave.
    """

    graph_module: fx.GraphModule
    plan: Mapping[str, LayerPlan] = field(default_factory=lambda: MappingProxyType({}))
    report: Report = field(default_factory=Report)
    call: CallSpec | None = None
    between: Mapping[str, BetweenPlan] = field(default_factory=lambda: MappingProxyType({}))
    weights: KnownWeights = field(default_factory=KnownWeights)

    def with_plan(
        self, plan: Mapping[str, LayerPlan], between: Mapping[str, BetweenPlan] | None = None
    ) -> Program:
        """Return the program with another plan; operations between layers keep theirs if None."""
        kept = self.between if between is None else MappingProxyType(dict(between))
        return replace(self, plan=MappingProxyType(dict(plan)), between=kept)
