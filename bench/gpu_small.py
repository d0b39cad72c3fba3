"""Small products on every kernel and tile, checked: what compute-sanitizer watches."""

from __future__ import annotations

import torch

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.testing.cases import OUTPUTS, Conv, conv_case, depthwise_case, linear_case
from fastinfer.testing.devices import on_device
from fastinfer.testing.every_case import every_case

CASES = (
    linear_case((130,), 72, 400, OUTPUTS[1]),
    linear_case((65,), 250, 1040, OUTPUTS[5]),
    linear_case((33,), 40, 70),
    linear_case((70,), 72, 64, OUTPUTS[1]),
    conv_case(Conv(1, 32, (9, 9), 48), OUTPUTS[1]),
    conv_case(Conv(2, 16, (6, 5), 33, stride=(2, 1)), OUTPUTS[6]),
    conv_case(Conv(1, 64, (9, 7), 40, stride=(2, 2)), zero_point=0),
    conv_case(Conv(1, 256, (5, 6), 72, groups=2), OUTPUTS[3]),
    conv_case(Conv(1, 3, (15, 17), 16, stride=(2, 2))),
)
#: Sparse weights, the kind of their zeros in the label, on the tiles for them.
TWO_OF_FOUR = (
    linear_case((130,), 80, 400, OUTPUTS[1], "2:4"),
    conv_case(Conv(2, 64, (9, 10), 80), OUTPUTS[1], "2:4"),
    conv_case(Conv(1, 32, (9, 9), 48), OUTPUTS[5], "2:4"),
)
GATHERED = (
    lambda channels: linear_case((130,), 80, 384, OUTPUTS[1], f"v{channels}"),
    lambda channels: conv_case(Conv(2, 64, (9, 10), 80), OUTPUTS[3], f"v{channels}"),
)
#: No kernel of these asks for a tile.
DEPTHWISE = (
    depthwise_case(Conv(2, 40, (9, 7), 40, groups=40), OUTPUTS[3]),
    depthwise_case(Conv(1, 24, (9, 10), 24, stride=(2, 2), groups=24), OUTPUTS[2]),
    depthwise_case(Conv(1, 16, (7, 7), 16, kernel=(5, 5), padding=(2, 2), groups=16)),
    depthwise_case(
        Conv(1, 8, (9, 9), 8, kernel=(5, 5), padding=(2, 2), stride=(2, 2), groups=8), OUTPUTS[3]
    ),
    depthwise_case(Conv(1, 33, (5, 6), 33, kernel=(2, 4), groups=33), OUTPUTS[6]),
    depthwise_case(Conv(1, 16, (8, 8), 16, dilation=(2, 2), groups=16), OUTPUTS[1]),
)
#: One case of each of these, the last there is.
BETWEEN = (
    *("dequantize", "int8_lookup", "int8_add", "int8_mul", "int8_cat", "int8_max_pool2d"),
    *("int8_avg_pool2d", "int8_adaptive_avg_pool2d", "int8_upsample2d", "float_layer_norm"),
    *("float_softmax", "quantize_dynamic", "int8_linear_dynamic", "int8_conv2d_dynamic"),
)
FIRST = (
    conv_case(Conv(2, 3, (33, 31), 64, kernel=(7, 7), padding=(3, 3), stride=(2, 2))),
    conv_case(Conv(2, 3, (17, 18), 40, stride=(2, 2)), OUTPUTS[1]),
)


def main() -> None:
    kernels = runtime.require_cuda_kernels()
    references = {op.name: op.reference for op in OPS}
    for case in CASES:
        args = case.build()
        want, there = references[case.op](*args), on_device(args, "cuda")
        for config in kernels.known_configs():
            kernels.force_config(**config)
            got = getattr(torch.ops.fastinfer, case.op)(*there)
            assert torch.equal(got.cpu(), want), (str(case), config)
    kernels.set_sparse("always")
    sparse = [(c, config) for config in kernels.known_sparse_configs() for c in TWO_OF_FOUR]
    for config in kernels.known_gather_configs():
        sparse += [(case(config["block_n"]), config) for case in GATHERED]
    for case, config in sparse:
        kernels.force_config(**config)
        args = case.build()
        got = getattr(torch.ops.fastinfer, case.op)(*on_device(args, "cuda"))
        assert torch.equal(got.cpu(), references[case.op](*args)), (str(case), config)
    kernels.set_sparse("auto")
    kernels.force_config("")
    for case in DEPTHWISE:
        args = case.build()
        got = torch.ops.fastinfer.int8_depthwise_conv2d(*on_device(args, "cuda"))
        assert torch.equal(got.cpu(), references[case.op](*args)), str(case)
    for channels in (3, 5, 64):
        x = torch.randn(2, channels, 9, 7)
        for channels_last in (False, True):
            args = (x, 0.02, 100, channels_last)
            got = torch.ops.fastinfer.quantize(x.cuda(), *args[1:])
            assert torch.equal(got.cpu(), references["quantize"](*args))
    between = {c.op: c for c in every_case() if c.op in BETWEEN and "0x" not in c.label}
    for case in (*between.values(), *FIRST):
        args = case.build()
        got = getattr(torch.ops.fastinfer, case.op)(*on_device(args, "cuda"))
        want = references[case.op](*args)
        pairs = zip(got, want, strict=True) if isinstance(got, tuple) else ((got, want),)
        assert all(torch.equal(g.cpu(), w) for g, w in pairs), str(case)
    tiles = len(kernels.known_configs())
    others = len(sparse) + len(DEPTHWISE) + len(between) + len(FIRST)
    print(f"{len(CASES)} cases on {tiles} tiles, {others} others: equal")


if __name__ == "__main__":
    main()
