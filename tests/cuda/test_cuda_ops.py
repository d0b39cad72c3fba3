"""Every CUDA kernel against its op's reference: equal, on every tile shape that is built."""

from __future__ import annotations

import gc

import pytest
import torch
from cuda_library import need_gpu

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import generator, random_uint8
from fastinfer.testing.cases import (
    OUTPUTS,
    UNBOUNDED,
    Conv,
    conv_case,
    depthwise_case,
    linear_case,
)
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.devices import on_device, pack_again
from fastinfer.testing.every_case import every_case
from fastinfer.types.packed import LAYOUTS, read_header, unpack

need_gpu("the CUDA kernels are not run")

SPECS = {op.name: op for op in OPS}
#: Ops with CUDA kernels.
SERVED = ("quantize", "int8_linear", "int8_conv2d", "int8_depthwise_conv2d")
CONFIGS = runtime.require_cuda_kernels().known_configs()
IDS = ["{kernel}_{block_m}x{block_n}_c{cluster}".format(**c) for c in CONFIGS]


@pytest.fixture(params=CONFIGS, ids=IDS)
def config(request):
    kernels = runtime.require_cuda_kernels()
    kernels.force_config(**request.param)
    yield request.param
    kernels.force_config("")


def check(case):
    """Compare a case on the GPU with the reference on the CPU, strides included."""
    args = case.build()
    want = SPECS[case.op].reference(*args)
    got = getattr(torch.ops.fastinfer, case.op)(*on_device(args, "cuda"))
    assert got.is_cuda
    assert_equal(got.cpu(), want)
    assert got.stride() == want.stride() or got.numel() == 0


@pytest.mark.parametrize("op", [*SERVED, "int8_prepack"])
def test_has_a_kernel(op):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"fastinfer::{op}", "CUDA")


@pytest.mark.parametrize("case", [c for c in every_case() if c.op in SERVED], ids=str)
def test_equals_reference(case):
    check(case)


#: Rows, channels and depth at, below and above tiles; K one, some and more blocks than stages.
LINEAR = (
    linear_case((1,), 8, 16),
    linear_case((63,), 40, 64, OUTPUTS[1]),
    linear_case((64,), 64, 128, OUTPUTS[3]),
    linear_case((65,), 72, 144, OUTPUTS[5]),
    linear_case((127,), 250, 400, OUTPUTS[1]),
    linear_case((128,), 256, 512, OUTPUTS[2]),
    linear_case((129,), 264, 528, OUTPUTS[6]),
    linear_case((257,), 300, 1040, OUTPUTS[4]),
    linear_case((1000,), 520, 2064, UNBOUNDED[1]),
    linear_case((40,), 33, 96, OUTPUTS[5], weights="extreme"),
    linear_case((321,), 328, 64, OUTPUTS[1]),
    linear_case((200,), 256, 64, UNBOUNDED[1]),
)
CONVS = (
    Conv(2, 32, (14, 14), 48),
    Conv(1, 64, (28, 28), 136, stride=(2, 2)),
    Conv(3, 16, (9, 7), 33, kernel=(5, 3), padding=(2, 0), dilation=(2, 1)),
    Conv(2, 64, (8, 8), 96, kernel=(1, 1), padding=(0, 0), stride=(2, 2)),
    Conv(2, 64, (12, 12), 64, groups=2),
    Conv(5, 256, (7, 7), 264),
    Conv(2, 128, (10, 9), 64),
    Conv(1, 96, (13, 11), 72, stride=(2, 1), padding=(0, 2)),
    Conv(2, 192, (8, 8), 40, kernel=(1, 3), padding=(0, 1)),
    Conv(
        1, 256, (9, 12), 72, kernel=(3, 2), stride=(1, 3), padding=(1, 2), dilation=(2, 1), groups=2
    ),
    Conv(9, 64, (5, 6), 72, kernel=(5, 5), padding=(2, 2)),
    Conv(2, 3, (30, 31), 64, kernel=(7, 7), stride=(2, 2), padding=(3, 3)),
    Conv(1, 2, (9, 9), 33, kernel=(5, 2), stride=(2, 1), dilation=(1, 2)),
)
#: Beyond what a tensor map of windows can say, so gathered.
WIDE_CONVS = (
    Conv(1, 32, (40, 9), 16, stride=(9, 1)),
    Conv(1, 32, (9, 150), 16, padding=(1, 128)),
    Conv(1, 64, (9, 150), 16, kernel=(1, 2), padding=(0, 0), dilation=(1, 128)),
)
#: Round the tiles of both depthwise kernels: odd sizes, ragged channels, rows of several blocks.
DEPTHWISE = tuple(
    Conv(n, c, size, c, groups=c, **geometry)
    for n, c, size, geometry in (
        (2, 32, (15, 17), {}),
        (1, 40, (40, 9), {"stride": (2, 2)}),
        (1, 96, (14, 14), {"kernel": (5, 5), "padding": (2, 2)}),
        (3, 72, (13, 7), {"kernel": (5, 5), "padding": (2, 2), "stride": (2, 2)}),
        (1, 264, (7, 7), {"padding": (0, 3)}),
        (2, 16, (9, 6), {"kernel": (3, 1), "padding": (1, 0), "stride": (1, 3)}),
        (1, 24, (11, 12), {"kernel": (5, 3), "padding": (4, 1), "dilation": (1, 2)}),
        (1, 32, (1, 1), {}),
        (1, 41, (9, 9), {"kernel": (5, 5), "padding": (2, 2)}),
        (1, 1032, (3, 5), {"kernel": (4, 9), "padding": (3, 4)}),
        (1, 48, (12, 12), {"dilation": (2, 3), "padding": (2, 3)}),
    )
)
#: [N, C, H, W] around the blocks of quantize's NHWC kernels.
PLANES = (
    *((2, 2, 31, 33), (1, 3, 32, 32), (3, 3, 9, 37), (2, 4, 40, 40), (1, 5, 9, 7)),
    *((2, 64, 8, 8), (1, 80, 13, 5), (1, 72, 8, 9), (3, 130, 1, 65)),
)


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_linear_on_every_tile(case, config):
    check(case)


@pytest.mark.parametrize("output", [OUTPUTS[0], OUTPUTS[1], OUTPUTS[6]], ids=lambda o: o.name)
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_conv_on_every_tile(conv, output, config):
    check(conv_case(conv, output))


@pytest.mark.parametrize("zero_point", [0, 255])
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_zero_points_of_padding_on_every_tile(conv, zero_point, config):
    check(conv_case(conv, zero_point=zero_point))


@pytest.mark.parametrize("conv", WIDE_CONVS, ids=str)
def test_convs_that_are_gathered(conv):
    check(conv_case(conv, OUTPUTS[1]))


@pytest.mark.parametrize("output", [*OUTPUTS, *UNBOUNDED], ids=lambda o: o.name)
@pytest.mark.parametrize("conv", DEPTHWISE, ids=str)
def test_depthwise(conv, output):
    check(depthwise_case(conv, output))


def test_depthwise_of_more_images_than_a_grid_has_rows():
    check(depthwise_case(Conv(66000, 8, (1, 2), 8, groups=8)))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("strip", "lanes"), [(1, 128), (2, 1), (3, 16), (7, 64), (40, 32)])
def test_depthwise_on_every_strip(kernel, stride, strip, lanes):
    kernels = runtime.require_cuda_kernels()
    conv = Conv(
        2, 72, (13, 30), 72, kernel=(kernel,) * 2, padding=(kernel // 2, 1), stride=(stride,) * 2,
        groups=72,
    )  # fmt: skip
    kernels.force_depthwise(strip, lanes)
    try:
        check(depthwise_case(conv))
        check(depthwise_case(conv, OUTPUTS[3]))
    finally:
        kernels.force_depthwise()


@pytest.mark.parametrize("offset", [1, 4, 8])
def test_depthwise_of_misaligned_and_strided(offset):
    case = depthwise_case(Conv(2, 32, (9, 8), 32, groups=32), OUTPUTS[1])
    x, packed, residual, *rest = on_device(case.build(), "cuda")
    call = torch.ops.fastinfer.int8_depthwise_conv2d
    want = call(x, packed, residual, *rest)

    def moved(t):
        storage = torch.zeros(t.numel() + offset, dtype=torch.uint8, device="cuda")
        rows = t.permute(0, 2, 3, 1)
        return storage[offset:].view(rows.shape).copy_(rows).permute(0, 3, 1, 2)

    assert_equal(call(moved(x), packed, moved(residual), *rest), want)
    assert_equal(call(x.contiguous(), packed, residual.contiguous(), *rest), want)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", PLANES, ids=str)
def test_quantize_planes(shape, offset):
    x = torch.randn(shape, generator=generator(str(shape))) * 3
    x[0, 0, 0, 0] = float("nan")
    storage = torch.empty(x.numel() + offset, device="cuda")
    there = storage[offset:].view(shape).copy_(x)
    got = torch.ops.fastinfer.quantize(there, 0.02, 100, True)
    assert_equal(got.cpu(), SPECS["quantize"].reference(x, 0.02, 100, True))


def test_many_tiles(config):
    """Several tiles for each block of threads, ragged on both sides."""
    g = torch.Generator("cuda").manual_seed(1)
    m, n, k = 9001, 2056, 656
    x = torch.randint(0, 256, (m, k), generator=g, device="cuda", dtype=torch.uint8)
    args = linear_case((9,), n, k, OUTPUTS[0]).build()
    packed = on_device(args, "cuda")[1]
    got = torch.ops.fastinfer.int8_linear(x, packed, None, n, False)
    assert_equal(got, SPECS["int8_linear"].reference(x, packed, None, n, False))


@pytest.mark.parametrize("op", ["linear", "conv2d", "few channels", "depthwise", "tall"])
def test_packing_round_trip(op):
    case = linear_case((3,), 45, 70, OUTPUTS[4]) if op == "linear" else conv_case(
        Conv(1, 12, (5, 5), 42, groups=3), OUTPUTS[1]
    )  # fmt: skip
    if op == "few channels":
        case = conv_case(Conv(1, 3, (9, 9), 20, kernel=(5, 3)))
    if op in ("depthwise", "tall"):
        kernel = (3, 5) if op == "depthwise" else (6, 2)
        case = depthwise_case(Conv(1, 70, (9, 9), 70, kernel=kernel, groups=70), OUTPUTS[4])
    before = unpack(case.build()[1])
    packed = pack_again(before, "cuda")
    assert packed.is_cuda and LAYOUTS[read_header(packed).layout] == "cuda"
    after = unpack(packed)
    for name in ("weight", "bias", "multiplier", "residual_multiplier", "table", "float_bias"):
        assert_equal(getattr(after, name), getattr(before, name))


def layer(k=64, n=32, output=OUTPUTS[0], m=40):
    return on_device(linear_case((m,), n, k, output).build(), "cuda")


def test_misaligned_and_strided():
    x, packed, *rest = layer()
    want = torch.ops.fastinfer.int8_linear(x, packed, *rest)
    storage = torch.zeros(x.numel() + 5, dtype=torch.uint8, device="cuda")
    offset = storage[5:].view_as(x).copy_(x)
    assert_equal(torch.ops.fastinfer.int8_linear(offset, packed, *rest), want)
    strided = x.repeat(1, 2)[:, :64]
    assert_equal(torch.ops.fastinfer.int8_linear(strided, packed, *rest), want)
    assert_equal(torch.ops.fastinfer.int8_linear(x[5:], packed, *rest), want[5:])


def test_graph_replays():
    x, packed, *rest = layer()
    call = torch.ops.fastinfer.int8_linear
    call(x, packed, *rest)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        codes = torch.ops.fastinfer.quantize(x.float(), 1.0, 0)
        out = call(codes, packed, *rest)
    x.copy_(random_uint8(generator("graph"), *x.shape))
    graph.replay()
    assert_equal(out, call(x, packed, *rest))


def test_graph_replays_a_chain():
    """Quantize, three convolutions, one with a residual, and a linear layer, in one graph."""
    first = on_device(conv_case(Conv(2, 3, (17, 19), 32, stride=(2, 2))).build(), "cuda")
    second = on_device(conv_case(Conv(2, 32, (9, 10), 32)).build(), "cuda")
    third = on_device(conv_case(Conv(2, 32, (9, 10), 32), OUTPUTS[1]).build(), "cuda")
    last = on_device(linear_case((2,), 24, 32 * 9 * 10, OUTPUTS[5]).build(), "cuda")
    images = torch.randn(2, 3, 17, 19, generator=generator("chain")).cuda()

    def chain(ops):
        codes = ops["quantize"](images, 0.03, 7, True)
        a = ops["int8_conv2d"](codes, *first[1:])
        b = ops["int8_conv2d"](a, *second[1:])
        c = ops["int8_conv2d"](b, third[1], a, *third[3:])
        return ops["int8_linear"](c.flatten(1), *last[1:])

    ours = {op: getattr(torch.ops.fastinfer, op) for op in SERVED}
    chain(ours)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain(ours)
    for scale in (1.0, 2.5):
        images.mul_(scale)
        graph.replay()
        with torch.backends.cudnn.flags(enabled=False):  # exact in float64
            assert_equal(out, chain({op: SPECS[op].reference for op in SERVED}))


def test_side_stream():
    x, packed, *rest = layer(k=512, n=256, m=512)
    want = torch.ops.fastinfer.int8_linear(x, packed, *rest)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = torch.ops.fastinfer.int8_linear(x, packed, *rest)
    stream.synchronize()
    assert_equal(got, want)


def test_copied_and_replaced_buffers():
    """What the host notes of a buffer is never a number in a result."""
    x, packed, *rest = layer()
    want = torch.ops.fastinfer.int8_linear(x, packed, *rest)
    assert_equal(torch.ops.fastinfer.int8_linear(x, packed.clone(), *rest), want)
    other = layer(output=OUTPUTS[2])[1]
    assert other.numel() == packed.numel()
    expected = SPECS["int8_linear"].reference(x, other, *rest)
    packed.copy_(other)
    assert_equal(torch.ops.fastinfer.int8_linear(x, packed, *rest), expected)
    with_table = layer(output=OUTPUTS[3])[1]
    del packed, other
    gc.collect()
    expected = SPECS["int8_linear"].reference(x, with_table, *rest)
    assert_equal(torch.ops.fastinfer.int8_linear(x, with_table.clone(), *rest), expected)


def test_errors_name_the_argument():
    x, packed, *rest = layer()
    call = torch.ops.fastinfer.int8_linear
    # Of a size that no other test packs: an address that is used again counts as what was there.
    cpu = linear_case((40,), 57, 64).build()
    with pytest.raises(RuntimeError, match=r"int8_linear: expected packed on cuda:0"):
        call(x, cpu[1], None, 57, False)
    with pytest.raises(RuntimeError, match=r"int8_linear: expected x on the GPU .* on cpu"):
        call(cpu[0], packed, *rest)
    with pytest.raises(RuntimeError, match=r"int8_linear: packed: expected layout cuda, got that"):
        call(x, cpu[1].cuda(), None, 57, False)
    with pytest.raises(RuntimeError, match=r"int8_linear: expected x \[\*, 64\]"):
        call(x[:, :32], packed, *rest)
    with pytest.raises(RuntimeError, match="packed for no residual"):
        call(x, packed, torch.zeros(40, 32, dtype=torch.uint8, device="cuda"), 32, False)
    with pytest.raises(RuntimeError, match="float_output does not match"):
        call(x, packed, None, 32, True)
    with pytest.raises(RuntimeError, match="packed for conv2d, got one for linear"):
        torch.ops.fastinfer.int8_conv2d(
            x.view(1, 64, 5, 8), packed, None, 32, [1, 1], [1, 1], [0, 0], [1, 1], 1, False
        )
