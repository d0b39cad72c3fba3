"""The CUDA kernels of ops between layers, and over whole rows: equal to their references."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cuda_library import need_gpu
from torch import Tensor

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import generator, random_uint8
from fastinfer.testing.cases import (
    OUTPUTS,
    Conv,
    dynamic_conv_case,
    linear_case,
    pack_dynamic,
    random_weight,
)
from fastinfer.testing.cases_between import image
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.devices import on_device
from fastinfer.testing.every_case import every_case

need_gpu("the CUDA kernels between layers are not run")

SPECS = {op.name: op for op in OPS}
SERVED = (
    "dequantize",
    "int8_lookup",
    "int8_add",
    "int8_mul",
    "int8_cat",
    "int8_max_pool2d",
    "int8_avg_pool2d",
    "int8_adaptive_avg_pool2d",
    "int8_upsample2d",
    "float_layer_norm",
    "float_softmax",
    "quantize_dynamic",
    "int8_linear_dynamic",
    "int8_conv2d_dynamic",
)
ops = torch.ops.fastinfer
PAIR = (0.7231, 117, 0.3517, 31, 101, 0, 255)
POOLED = (0.7, 117, 101, 3, 250)
TABLE = random_uint8(generator("table"), 256)

#: op -> arguments behind an image; int8_add and int8_mul take it twice.
OF_IMAGE: dict[str, tuple[Any, ...]] = {
    "dequantize": (0.0173, 101),
    "int8_lookup": (TABLE,),
    "int8_max_pool2d": ([3, 3], [2, 2], [1, 1], [1, 1], False),
    "int8_avg_pool2d": ([3, 2], [2, 1], [1, 0], True, False, *POOLED),
    "int8_adaptive_avg_pool2d": ([1, 1], *POOLED),
    "int8_upsample2d": (None, [9, 20], [], True, False),
}


CONFIGS = runtime.require_cuda_kernels().known_configs()


@pytest.fixture(params=CONFIGS, ids=lambda c: "{kernel}_{block_m}x{block_n}".format(**c))
def config(request):
    kernels = runtime.require_cuda_kernels()
    kernels.force_config(**request.param)
    yield request.param
    kernels.force_config("")


def results(value):
    return list(value) if isinstance(value, (tuple, list)) else [value]


def check(op: str, *args: Any, there: tuple[Any, ...] | None = None, strides: bool = True) -> None:
    """Compare an op on the GPU with the reference on the CPU.

    there: the arguments on the GPU, where they are not just copies. strides: of the result too.
    """
    want = results(SPECS[op].reference(*args))
    got = results(getattr(ops, op)(*(on_device(args, "cuda") if there is None else there)))
    for g, w in zip(got, want, strict=True):
        assert g.is_cuda
        assert_equal(g.cpu(), w)
        assert not strides or g.stride() == w.stride() or g.numel() == 0


@pytest.mark.parametrize("op", SERVED)
def test_has_a_kernel(op):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"fastinfer::{op}", "CUDA")


@pytest.mark.parametrize("case", [c for c in every_case() if c.op in SERVED], ids=str)
def test_equals_reference(case):
    check(case.op, *case.build())


@pytest.mark.parametrize("channels", [1, 3, 16, 24, 100, 300])
@pytest.mark.parametrize("layout", ["nhwc", "nchw", "strided", "offset", "flipped", "expanded"])
@pytest.mark.parametrize("op", sorted(OF_IMAGE))
def test_of_any_layout(op, layout, channels):
    shape = (3, channels, 13, 10)
    g = generator(f"{op}{layout}{channels}")
    x = image(g, shape, layout if layout in ("nhwc", "nchw") else "nhwc")
    there = x.cuda()
    if layout == "strided":
        wide = torch.zeros(3, channels, 13, 20, dtype=torch.uint8, device="cuda")
        there = wide[..., ::2].copy_(x)
        x = torch.zeros(3, channels, 13, 20, dtype=torch.uint8)[..., ::2].copy_(x)
    elif layout == "offset":
        storage = torch.zeros(x.numel() + 1, dtype=torch.uint8, device="cuda")
        there = storage[1:].view(3, 13, 10, channels).permute(0, 3, 1, 2).copy_(x)
    elif layout == "flipped":
        x = x.transpose(2, 3)
        there = there.transpose(2, 3)
    elif layout == "expanded":
        x, there = x[:1].expand(3, -1, -1, -1), there[:1].expand(3, -1, -1, -1)
    rest = OF_IMAGE[op]
    # The reference of int8_lookup keeps any strides that are dense, kernels NHWC alone.
    strides = layout not in ("flipped", "expanded")
    check(op, x, *rest, there=(there, *on_device(rest, "cuda")), strides=strides)


@pytest.mark.parametrize("channels", [1, 3, 16, 24, 100])
@pytest.mark.parametrize("offset", [0, 1, 8])
@pytest.mark.parametrize("repeats", [False, True])
def test_pairs_at_any_address(repeats, offset, channels):
    g = generator(f"pair{offset}{channels}{repeats}")
    x = image(g, (2, channels, 9, 7), "nhwc")
    y = image(g, (2, channels, 1, 1) if repeats else (2, channels, 9, 7), "nhwc")

    def moved(t: Tensor) -> Tensor:
        rows = t.permute(0, 2, 3, 1)
        storage = torch.zeros(t.numel() + offset, dtype=torch.uint8, device="cuda")
        return storage[offset:].view(rows.shape).copy_(rows).permute(0, 3, 1, 2)

    check("int8_add", x, y, *PAIR, None, there=(moved(x), moved(y), *PAIR, None))
    check("int8_add", x, y, *PAIR, TABLE, there=(moved(x), moved(y), *PAIR, TABLE.cuda()))
    product = (0.011, 117, 31, 101, 0, 255)
    check("int8_mul", x, y, *product, there=(moved(x), moved(y), *product))
    maps = ([0.631, 1.0], [17, 101], 101)
    if not repeats:
        check("int8_cat", [x, y], 1, *maps, there=([moved(x), moved(y)], 1, *maps))


def test_cat_of_more_parts_than_a_launch_takes():
    g = generator("parts")
    parts = [image(g, (2, 1 + i % 5, 4, 3), "nhwc") for i in range(70)]
    check("int8_cat", parts, 1, [0.7] * 70, [31] * 70, 101)
    rows = [random_uint8(g, 5, 16 * (i % 3)) for i in range(70)]
    check("int8_cat", rows, 1, [1.0] * 70, [101] * 70, 101)


@pytest.mark.parametrize("shape", [(4, 32, 112, 112), (2, 272, 60, 60), (1, 5, 200, 300)], ids=str)
@pytest.mark.parametrize("value", [None, 255])
def test_averages_of_large_images(shape, value):
    x = image(generator(str(shape)), shape, "nhwc")
    if value is not None:
        x.fill_(value)
    check("int8_adaptive_avg_pool2d", x, [1, 1], *POOLED)


@pytest.mark.parametrize("n", [1, 16, 100, 197, 768, 1000, 5000])
@pytest.mark.parametrize("rows", [1, 17, 700])
def test_float_rows(rows, n):
    x = torch.randn(rows, n, generator=generator(f"{rows}x{n}")) * 4
    weight, bias = torch.randn(2, n, generator=generator("parameters"))
    check("float_layer_norm", x, weight, bias, 1e-6, 1)
    check("float_softmax", x, 1)
    moved = torch.zeros(x.numel() + 1, device="cuda")[1:].view(rows, n).copy_(x)
    check("float_softmax", x, 1, there=(moved, 1))
    there = (moved, weight.cuda(), bias.cuda(), 1e-6, 1)
    check("float_layer_norm", x, weight, bias, 1e-6, 1, there=there)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize(
    "shape", [(3, 5), (70, 1024), (5, 1025), (2, 3, 4099), (9, 70000)], ids=str
)
def test_ranges(shape, per_token):
    x = torch.randn(shape, generator=generator(str(shape))) * 3
    x.view(-1)[1] = float("nan")
    check("quantize_dynamic", x, per_token)
    moved = torch.zeros(x.numel() + 1, device="cuda")[1:].view(shape).copy_(x)
    check("quantize_dynamic", x, per_token, there=(moved, per_token))


DYNAMIC_CONVS = (
    Conv(3, 64, (14, 14), 72),
    Conv(2, 3, (33, 31), 64, kernel=(7, 7), padding=(3, 3), stride=(2, 2)),
    Conv(2, 128, (9, 10), 128, padding=(2, 1), dilation=(2, 1), groups=2),
    Conv(2, 48, (9, 10), 48, groups=48),
    Conv(2, 64, (8, 8), 64, kernel=(1, 1), padding=(0, 0)),
)


@pytest.mark.parametrize("conv", DYNAMIC_CONVS, ids=str)
def test_dynamic_convs(conv, config):
    case = dynamic_conv_case(conv)
    check(case.op, *case.build())


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("m", [1, 65, 300])
def test_dynamic_linear(m, per_token, config):
    g = generator(f"{m}{per_token}")
    packed = pack_dynamic("linear", random_weight(g, "normal", 264, 528), g, 1)
    check("int8_linear_dynamic", torch.randn(m, 528, generator=g) * 2, packed, 264, per_token)


def test_unpacking_on_the_gpu():
    """What module.repack, state_dict and save read a packed buffer by."""
    g = generator("unpack")
    for op, shape, groups in (
        ("linear", (45, 70), 1),
        ("conv2d", (42, 4, 3, 2), 3),
        ("depthwise_conv2d", (70, 1, 3, 3), 70),
    ):
        packed = pack_dynamic(op, random_weight(g, "normal", *shape), g, groups)
        (there,) = on_device((packed,), "cuda")
        for got, want in zip(ops.int8_unpack(there), ops.int8_unpack(packed), strict=True):
            assert got.is_cuda
            assert_equal(got.cpu(), want)


def test_static_and_dynamic_weights_are_told_apart():
    g = generator("modes")
    packed = pack_dynamic("linear", random_weight(g, "normal", 16, 32), g, 1)
    (dynamic,) = on_device((packed,), "cuda")
    static = on_device(linear_case((3,), 16, 32, OUTPUTS[5]).build(), "cuda")[1]
    x = torch.zeros(3, 32, device="cuda")
    with pytest.raises(RuntimeError, match="expected a dynamic weight, got a static one"):
        ops.int8_linear_dynamic(x, static, 16, True)
    with pytest.raises(RuntimeError, match="expected a static weight, got a dynamic one"):
        ops.int8_linear(x.byte(), dynamic, None, 16, True)


def test_beyond_two_to_the_31():
    """Sizes in int64: the last codes of 2^31 and more are right."""
    count = (1 << 31) + 4096 + 17
    x = torch.empty(count, dtype=torch.uint8, device="cuda")
    x[:4096] = random_uint8(generator("first"), 4096).cuda()
    x[4096:].fill_(7)
    x[-4096:] = random_uint8(generator("last"), 4096).cuda()
    table = TABLE.cuda()
    found = ops.int8_lookup(x, table)
    for part in (slice(0, 5000), slice(-5000, None)):
        assert_equal(found[part].cpu(), SPECS["int8_lookup"].reference(x[part].cpu(), TABLE))
    added = ops.int8_add(x, found, *PAIR, None)
    for part in (slice(0, 5000), slice(-5000, None)):
        want = SPECS["int8_add"].reference(x[part].cpu(), found[part].cpu(), *PAIR, None)
        assert_equal(added[part].cpu(), want)
    with pytest.raises(RuntimeError, match=r"int8_max_pool2d: expected an image of fewer than"):
        ops.int8_max_pool2d(x.view(1, 1, 1, -1), *OF_IMAGE["int8_max_pool2d"])
    repeated = x[: 1 << 31].view(1, 1, 1 << 16, 1 << 15)
    with pytest.raises(RuntimeError, match=r"int8_mul: expected x of fewer than 2\^31 bytes"):
        ops.int8_mul(repeated, repeated[:, :, :1, :1], 0.01, 1, 1, 1, 0, 255)


def test_a_graph_holds_every_op():
    """No op waits, and none allocates but by torch: what a graph replays follows its input."""
    x = image(generator("graph"), (2, 24, 14, 13), "nhwc").cuda()
    table = TABLE.cuda()

    def chain(call):
        a = call("int8_lookup", x, table)
        b = call("int8_add", a, x, *PAIR, table)
        gate = call("int8_adaptive_avg_pool2d", b, [1, 1], *POOLED)
        c = call("int8_mul", b, gate, 0.01, 117, 31, 101, 0, 255)
        d = call("int8_max_pool2d", c, *OF_IMAGE["int8_max_pool2d"])
        e = call("int8_avg_pool2d", c, *OF_IMAGE["int8_avg_pool2d"])
        e = call("int8_upsample2d", e, d, [], [], True, False)
        f = call("int8_cat", [d, e], 1, [0.631, 1.0], [17, 101], 101)
        return call("dequantize", f, 0.02, 101)

    def ours(op, *args):
        return getattr(ops, op)(*args)

    def reference(op, *args):
        return SPECS[op].reference(*args)

    chain(ours)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain(ours)
    for label in ("once", "again"):
        x.copy_(image(generator(label), (2, 24, 14, 13), "nhwc"))
        graph.replay()
        x_there, x = x, x.cpu()
        table = table.cpu()
        assert_equal(out.cpu(), chain(reference))
        x, table = x_there, table.cuda()


def test_errors_name_the_argument():
    x = torch.zeros(2, 4, 5, 5, dtype=torch.uint8, device="cuda")
    with pytest.raises(RuntimeError, match=r"int8_add: expected y on cuda:0 as x, got one on cpu"):
        ops.int8_add(x, x.cpu(), *PAIR, None)
    with pytest.raises(RuntimeError, match=r"int8_add: expected y with x's shape \[2, 4, 5, 5\]"):
        ops.int8_add(x, x[:1], *PAIR, None)
    with pytest.raises(RuntimeError, match=r"int8_lookup: expected table \[256\], got \[255\]"):
        ops.int8_lookup(x, torch.zeros(255, dtype=torch.uint8, device="cuda"))
    with pytest.raises(RuntimeError, match=r"int8_cat: expected xs on cuda:0"):
        ops.int8_cat([x, x.cpu()], 1, [1.0, 1.0], [3, 3], 3)
    with pytest.raises(RuntimeError, match=r"int8_max_pool2d: expected padding of at most half"):
        ops.int8_max_pool2d(x, [2, 2], [1, 1], [1, 2], [1, 1], False)
    with pytest.raises(RuntimeError, match=r"int8_upsample2d: expected one of like"):
        ops.int8_upsample2d(x, None, [], [], True, False)
    with pytest.raises(RuntimeError, match=r"dequantize: expected x Byte, got Float"):
        ops.dequantize(x.float(), 1.0, 3)
