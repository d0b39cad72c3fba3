"""Graph rewrites, one per file: each takes a Program and returns how often it rewrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastinfer.passes.cancel_quantize import cancel_quantize
from fastinfer.passes.cast_halves import cast_halves
from fastinfer.passes.common_subexpressions import common_subexpressions
from fastinfer.passes.contiguous_outputs import contiguous_outputs
from fastinfer.passes.dead_code import dead_code
from fastinfer.passes.fold_batch_norm import fold_batch_norm
from fastinfer.passes.fold_constants import fold_constants
from fastinfer.passes.fold_scale import fold_scale
from fastinfer.passes.fuse_activation import fuse_activation
from fastinfer.passes.fuse_channel_shuffle import fuse_channel_shuffle
from fastinfer.passes.fuse_residual import fuse_residual
from fastinfer.passes.hoist_quantize import hoist_quantize
from fastinfer.passes.make_layers import make_layers
from fastinfer.passes.make_norm_layers import make_norm_layers
from fastinfer.passes.remove_identity import remove_identity
from fastinfer.passes.sink_dequantize import sink_dequantize
from fastinfer.passes.sink_permutes import sink_permutes
from fastinfer.passes.use_float_rows import use_float_rows
from fastinfer.passes.use_float_steps import use_float_steps
from fastinfer.program import Program

Pass = Callable[[Program], int]

#: On the captured graph, in this order: what follows a layer is fused after the layer exists, and
#: the residual before the activation, as the epilogue computes them.
FLOAT_PASSES: tuple[Pass, ...] = (
    remove_identity,
    fold_constants,
    common_subexpressions,
    fold_batch_norm,
    fuse_channel_shuffle,
    make_layers,
    fold_scale,
    fuse_residual,
    fuse_activation,
    dead_code,
)

#: The same where layers will be static int8: norms that no layer takes are layers too, before
#: activations are fused, and linears between images are convolutions.
STATIC_FLOAT_PASSES: tuple[Pass, ...] = tuple(
    step
    for one in FLOAT_PASSES
    for step in ((one, make_norm_layers, sink_permutes) if one is make_layers else (one,))
)

#: On the lowered graph: what stands between two int8 layers becomes int8.
INT8_PASSES: tuple[Pass, ...] = (
    cancel_quantize,
    sink_dequantize,
    cancel_quantize,
    hoist_quantize,
    cancel_quantize,
    use_float_rows,
    use_float_steps,
    dead_code,
    contiguous_outputs,
)

#: After INT8_PASSES where the graph is in float16 or bfloat16.
HALF_PASSES: tuple[Pass, ...] = (cast_halves,)


def run_passes(program: Program, passes: Sequence[Pass]) -> Program:
    """Return the program after each pass ran once; their counts are in its report."""
    for one in passes:
        counts = program.report.passes
        name = one.__name__
        counts[name] = counts.get(name, 0) + one(program)
    return program


__all__ = [
    "FLOAT_PASSES",
    "HALF_PASSES",
    "INT8_PASSES",
    "STATIC_FLOAT_PASSES",
    "Pass",
    "run_passes",
]
