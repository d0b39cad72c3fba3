"""Sparse weights on the GPU: equal to the reference on every tile, packed or not, as chosen."""

from __future__ import annotations

import pytest
import torch
from cuda_library import need_gpu

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import generator, random_uint8
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case, linear_case
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.devices import on_device
from fastinfer.types.packed import read_header, unpack

need_gpu("the sparse CUDA kernels are not run")

SPECS = {op.name: op for op in OPS}
KERNELS = runtime.require_cuda_kernels()
#: wgmma is in Hopper alone; 2:4 by mma.sp, and all that is chosen, runs on any GPU here.
IS_HOPPER = torch.cuda.get_device_capability() == (9, 0)
CONFIGS = [c for c in KERNELS.known_sparse_configs() if IS_HOPPER or c["kernel"] == "sparse_mma"]
IDS = ["{kernel}_{block_m}x{block_n}_c{cluster}".format(**c) for c in CONFIGS]
PAIRS = "2:4"
#: Channels that keep the same inputs, which is the tile too.
GATHERS = KERNELS.known_gather_configs() if IS_HOPPER else []


@pytest.fixture(params=GATHERS, ids=["{kernel}_{block_m}x{block_n}".format(**c) for c in GATHERS])
def gather(request):
    KERNELS.set_sparse("always")
    KERNELS.force_config(**request.param)
    yield f"v{request.param['block_n']}"
    KERNELS.force_config("")
    KERNELS.set_sparse("auto")


@pytest.fixture(params=CONFIGS, ids=IDS)
def config(request):
    KERNELS.set_sparse("always")
    KERNELS.force_config(**request.param)
    yield request.param
    KERNELS.force_config("")
    KERNELS.set_sparse("auto")


@pytest.fixture
def mode(request):
    """Return a function that sets how int8_prepack packs, until the test ends."""
    yield KERNELS.set_sparse
    KERNELS.set_sparse("auto")


def check(case, is_sparse=True):
    """Compare a case on the GPU with the reference on the CPU, strides included."""
    args = case.build()
    want = SPECS[case.op].reference(*args)
    there = on_device(args, "cuda")
    assert (read_header(there[1]).index != 0) == is_sparse
    got = getattr(torch.ops.fastinfer, case.op)(*there)
    assert_equal(got.cpu(), want)
    assert got.stride() == want.stride()


LINEAR = (
    linear_case((1,), 16, 16, OUTPUTS[0], PAIRS),
    linear_case((63,), 48, 64, OUTPUTS[1], PAIRS),
    linear_case((64,), 64, 128, OUTPUTS[3], PAIRS),
    linear_case((65,), 72, 144, OUTPUTS[5], PAIRS),
    linear_case((255,), 112, 272, OUTPUTS[1], PAIRS),
    linear_case((256,), 128, 1024, OUTPUTS[2], PAIRS),
    linear_case((257,), 144, 1040, OUTPUTS[1], PAIRS),
    linear_case((129,), 272, 528, OUTPUTS[6], PAIRS),
    linear_case((1000,), 520, 2064, UNBOUNDED[1], PAIRS),
    linear_case((40,), 33, 96, OUTPUTS[4], PAIRS),
    linear_case((70,), 64, 80, OUTPUTS[0], "zero"),
)
CONVS = (
    Conv(2, 64, (14, 14), 64),
    Conv(1, 128, (28, 28), 144, stride=(2, 2)),
    Conv(5, 256, (7, 7), 272),
    Conv(2, 64, (12, 12), 128, kernel=(1, 1), padding=(0, 0), stride=(2, 2)),
    Conv(2, 128, (12, 12), 96, groups=2),
    Conv(2, 192, (8, 8), 40, kernel=(1, 3), padding=(0, 1)),
    Conv(1, 128, (9, 12), 80, kernel=(3, 2), stride=(1, 3), padding=(1, 2), dilation=(2, 1)),
    Conv(9, 64, (5, 6), 80, kernel=(5, 5), padding=(2, 2)),
)
#: Whole lines of outputs: as in ResNet-50, ragged, and with more lines or images than a tile has.
LINE_CONVS = (
    Conv(1, 64, (56, 56), 64),
    Conv(2, 128, (28, 28), 128),
    Conv(3, 256, (14, 14), 256),
    Conv(5, 512, (7, 7), 520),
    Conv(2, 64, (11, 37), 72, padding=(0, 2)),
    Conv(3, 128, (5, 100), 40, kernel=(2, 3), padding=(1, 0)),
    Conv(7, 384, (3, 2), 96, kernel=(1, 3), padding=(0, 1)),
)
#: What only the kernel on mma.sp can read: narrow pixels, padding that no tensor map says.
GATHERED_CONVS = (
    Conv(2, 32, (14, 14), 48),
    Conv(1, 16, (9, 7), 33, kernel=(5, 3), padding=(2, 0), dilation=(2, 1)),
    Conv(1, 64, (9, 150), 16, padding=(1, 128)),
    Conv(1, 96, (40, 9), 40, stride=(9, 1)),
)


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_linear_on_every_tile(case, config):
    check(case)


@pytest.mark.parametrize("output", [OUTPUTS[0], OUTPUTS[1], OUTPUTS[5]], ids=lambda o: o.name)
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_conv_on_every_tile(conv, output, config):
    check(conv_case(conv, output, PAIRS))


@pytest.mark.parametrize("zero_point", [0, 255])
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_zero_points_of_padding_on_every_tile(conv, zero_point, config):
    check(conv_case(conv, weights=PAIRS, zero_point=zero_point))


@pytest.mark.parametrize("output", [OUTPUTS[0], OUTPUTS[1], OUTPUTS[5]], ids=lambda o: o.name)
@pytest.mark.parametrize("conv", GATHERED_CONVS, ids=str)
def test_convs_that_warps_gather(conv, output, config):
    check(conv_case(conv, output, PAIRS))


GATHER_SHAPES = (
    (1, 16, 64, OUTPUTS[0]),
    (127, 48, 128, OUTPUTS[1]),
    (128, 256, 256, OUTPUTS[3]),
    (129, 272, 320, OUTPUTS[5]),
    (257, 520, 1152, OUTPUTS[1]),
    (300, 320, 2048, OUTPUTS[4]),
    (70, 33, 192, OUTPUTS[6]),
    (1000, 528, 640, UNBOUNDED[1]),
)


@pytest.mark.parametrize("shape", GATHER_SHAPES, ids=str)
def test_gathered_linear(shape, gather):
    m, n, k, output = shape
    for weights in (gather,) if gather == "v256" else (gather, f"{gather} half"):
        check(linear_case((m,), n, k, output, weights))


@pytest.mark.parametrize("zero_point", [0, 7])
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_gathered_conv(conv, zero_point, gather):
    # 192 channels under a row of taps: of two boxes in a block, one and a half are there.
    for output in (OUTPUTS[0], OUTPUTS[1]):
        check(conv_case(conv, output, gather, zero_point=zero_point))
    # In two groups channels of two tiles are neighbours; of 256 there is no kernel of two steps.
    if conv.groups == 1 and gather != "v256":
        check(conv_case(conv, OUTPUTS[5], f"{gather} half", zero_point=zero_point))


@pytest.mark.parametrize("zero_point", [0, 7])
@pytest.mark.parametrize("conv", LINE_CONVS, ids=str)
def test_gathered_lines(conv, zero_point, gather):
    for output in (OUTPUTS[0], OUTPUTS[1], OUTPUTS[4]):
        check(conv_case(conv, output, gather, zero_point=zero_point))


def test_many_gathered_tiles(gather):
    g = torch.Generator("cuda").manual_seed(1)
    m, n, k = 9001, 2064, 640
    x = torch.randint(0, 256, (m, k), generator=g, device="cuda", dtype=torch.uint8)
    packed = on_device(linear_case((9,), n, k, OUTPUTS[0], gather).build(), "cuda")[1]
    got = torch.ops.fastinfer.int8_linear(x, packed, None, n, False)
    assert_equal(got, SPECS["int8_linear"].reference(x, packed, None, n, False))


def test_a_narrow_pointwise_weight_stays_dense(mode):
    """192 channels lie differently as rows of a matrix and as windows of stride 2."""
    mode("always")
    conv = Conv(2, 192, (9, 9), 64, kernel=(1, 1), padding=(0, 0))
    check(conv_case(conv, weights="v64"), False)


def test_many_tiles(config):
    """Several tiles for each block of threads, ragged on both sides."""
    g = torch.Generator("cuda").manual_seed(1)
    m, n, k = 9001, 2064, 656
    x = torch.randint(0, 256, (m, k), generator=g, device="cuda", dtype=torch.uint8)
    packed = on_device(linear_case((9,), n, k, OUTPUTS[0], PAIRS).build(), "cuda")[1]
    got = torch.ops.fastinfer.int8_linear(x, packed, None, n, False)
    assert_equal(got, SPECS["int8_linear"].reference(x, packed, None, n, False))


def test_what_sparse_kernels_cannot_read_is_served_densely(mode):
    """Misaligned and strided rows, more padding than a tensor map can say."""
    mode("always")
    x, packed, *rest = on_device(linear_case((300,), 128, 256, OUTPUTS[0], PAIRS).build(), "cuda")
    call = torch.ops.fastinfer.int8_linear
    want = call(x, packed, *rest)
    storage = torch.zeros(x.numel() + 5, dtype=torch.uint8, device="cuda")
    assert_equal(call(storage[5:].view_as(x).copy_(x), packed, *rest), want)
    assert_equal(call(x.repeat(1, 2)[:, :256], packed, *rest), want)
    check(conv_case(Conv(1, 64, (9, 150), 16, padding=(1, 128)), weights=PAIRS))


def test_choice_of_the_packer(mode):
    """Zeros of another pattern, small layers, and a weight that is to stay dense: no image."""
    for weights, is_sparse in (
        (PAIRS, True),
        ("v64", IS_HOPPER),
        ("normal", False),
        ("uniform", False),
    ):
        mode("always")
        check(linear_case((40,), 64, 128, OUTPUTS[0], weights), is_sparse)
    mode("never")
    check(linear_case((40,), 64, 128, OUTPUTS[0], PAIRS), False)
    mode("auto")
    check(linear_case((40,), 16, 32, OUTPUTS[0], PAIRS), False)
    check(linear_case((40,), 1024, 2048, OUTPUTS[0], PAIRS), True)
    mode("always")
    check(conv_case(Conv(1, 32, (9, 9), 64), weights=PAIRS), True)  # served by sparse_mma
    check(conv_case(Conv(1, 24, (9, 9), 64), weights=PAIRS), False)
    check(linear_case((40,), 64, 40, OUTPUTS[0], PAIRS), False)
    with pytest.raises(ValueError, match="set_sparse: expected mode auto, never or always"):
        mode("maybe")


def test_packing_round_trip(mode):
    mode("always")
    for case in (
        linear_case((3,), 45, 80, OUTPUTS[4], PAIRS),
        conv_case(Conv(1, 128, (5, 5), 42, groups=2), OUTPUTS[1], PAIRS),
    ):
        before = unpack(case.build()[1])
        packed = on_device(case.build(), "cuda")[1]
        assert read_header(packed).index != 0
        after = unpack(packed)
        for name in ("weight", "bias", "multiplier", "residual_multiplier", "table"):
            assert_equal(getattr(after, name), getattr(before, name))


def test_graph_replays(config):
    x, packed, *rest = on_device(linear_case((300,), 256, 512, OUTPUTS[0], PAIRS).build(), "cuda")
    call = torch.ops.fastinfer.int8_linear
    call(x, packed, *rest)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(x, packed, *rest)
    x.copy_(random_uint8(generator("graph"), *x.shape))
    graph.replay()
    assert_equal(out, SPECS["int8_linear"].reference(x, packed, *rest))
