"""Matrix instructions, products of warps and warpgroups, and bulk copies, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from interpreter import Fault, GlobalMemory
from interpreter.bfloat16 import bfloat16_bits, from_bfloat16
from interpreter.tensor_map import TensorMap, swizzle
from ptx_text import kernel, launch

RANDOM = np.random.default_rng(5)


def integers(kind: str, *shape: int) -> np.ndarray:
    low, high = (-128, 128) if kind == "s8" else (0, 256)
    return RANDOM.integers(low, high, shape).astype(np.int8 if kind == "s8" else np.uint8)


def halves(kind: str, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Return small integers as bits of a 16-bit type, whose products and sums are exact."""
    values = RANDOM.integers(-8, 9, shape).astype(np.float32)
    bits = values.astype(np.float16).view(np.uint16) if kind == "f16" else bfloat16_bits(values)
    return bits, values


def fragments(matrix: np.ndarray) -> np.ndarray:
    """Return what each lane holds of rows [8 n, bytes]: registers [32, n * bytes / 16] of 4 bytes.

    By the definition of the PTX ISA: lane = 4 (row % 8) + byte / 4 % 4; registers go down the rows
    first.
    """
    raw = np.ascontiguousarray(matrix).view(np.uint8)
    rows, size = raw.shape
    bands = rows // 8
    registers = np.zeros((32, bands * size // 16, 4), np.uint8)
    for row in range(rows):
        for byte in range(size):
            lane = 4 * (row % 8) + byte // 4 % 4
            registers[lane, byte // 16 * bands + row // 8, byte % 4] = raw[row, byte]
    return registers.view(np.uint32)[..., 0]


def from_sums(sums: np.ndarray) -> np.ndarray:
    """Return the matrix [16, 8] of sums [32, 4]: lane l has rows l / 4 and l / 4 + 8."""
    matrix = np.zeros((16, 8), sums.dtype)
    for lane in range(32):
        for i in range(4):
            matrix[lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2] = sums[lane, i]
    return matrix


def run_mma(statement: str, registers: list[np.ndarray], dtype: type) -> np.ndarray:
    """Return the result of an mma on registers %r10.. of lanes [32, count]; sums start at 3."""
    held = np.concatenate(registers, 1)
    memory = GlobalMemory(1 << 16)
    data, out = memory.add(held), memory.add_result(32 * 16)
    width = held.shape[1]
    three = "0f40400000" if dtype is np.float32 else "3"
    name, kind = ("%f", "f32") if dtype is np.float32 else ("%r", "b32")
    loads = "".join(f"\tld.global.u32 %r{10 + i}, [%rd3+{4 * i}];\n" for i in range(width))
    start = "".join(f"\tmov.{kind} {name}{i + 1}, {three};\n" for i in range(4))
    stores = "".join(f"\tst.global.{kind} [%rd4+{4 * i}], {name}{i + 1};\n" for i in range(4))
    body = f"""
\tmov.u32 %r0, %tid.x;
\tld.param.u64 %rd1, [p0];
\tld.param.u64 %rd2, [p1];
\tmul.wide.u32 %rd5, %r0, {4 * width};
\tadd.s64 %rd3, %rd1, %rd5;
\tmul.wide.u32 %rd6, %r0, 16;
\tadd.s64 %rd4, %rd2, %rd6;
{loads}{start}\t{statement}
{stores}"""
    launch(kernel(body, 2), memory, (data, out))
    return from_sums(memory.result(out, 512)[0].view(dtype).reshape(32, 4))


def names(prefix: str, first: int, count: int) -> str:
    return "{" + ", ".join(f"{prefix}{first + i}" for i in range(count)) + "}"


@pytest.mark.parametrize(("a_kind", "b_kind"), [("u8", "s8"), ("s8", "s8"), ("u8", "u8")])
@pytest.mark.parametrize("k", [16, 32])
def test_mma_of_bytes(a_kind, b_kind, k):
    a, b = integers(a_kind, 16, k), integers(b_kind, 8, k)
    count = k // 8
    got = run_mma(
        f"mma.sync.aligned.m16n8k{k}.row.col.s32.{a_kind}.{b_kind}.s32 {names('%r', 1, 4)}, "
        f"{names('%r', 10, count)}, {names('%r', 10 + count, count // 2)}, {names('%r', 1, 4)};",
        [fragments(a), fragments(b)],
        np.int32,
    )
    np.testing.assert_array_equal(got, a.astype(np.int32) @ b.astype(np.int32).T + 3)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("k", [8, 16])
def test_mma_of_halves(kind, k):
    (a, a_values), (b, b_values) = halves(kind, 16, k), halves(kind, 8, k)
    count = k // 4
    got = run_mma(
        f"mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32 {names('%f', 1, 4)}, "
        f"{names('%r', 10, count)}, {names('%r', 10 + count, count // 2)}, {names('%f', 1, 4)};",
        [fragments(a), fragments(b)],
        np.float32,
    )
    np.testing.assert_array_equal(got, a_values @ b_values.T + 3)


def sparse_rows(rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places [rows, k / 2] of two in every four, rising, and which elements they are."""
    choices = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)])
    places = choices[RANDOM.integers(0, 6, (rows, k // 4))].reshape(rows, k // 2)
    return places, places + np.arange(k // 2) // 2 * 4


def reordered_metadata(words: np.ndarray, group: int, interweave: int) -> np.ndarray:
    """Return metadata [rows, columns] in the order of reorder_meta in CUTLASS's host_reorder.h."""
    result = np.zeros_like(words)
    for i in range(words.shape[0]):
        for j in range(words.shape[1]):
            row, column = i // group * group + i % 8 * interweave + i % group // 8, j
            if row % 2 == 0 and column % 2 == 1:
                row, column = row + 1, column - 1
            elif row % 2 == 1 and column % 2 == 0:
                row, column = row - 1, column + 1
            result[row, column] = words[i, j]
    return result


@pytest.mark.parametrize("qualifier", ["sp", "sp::ordered_metadata"])
def test_sparse_mma_of_bytes(qualifier):
    """A is 2:4 sparse; its metadata lies as CUTLASS lays it out for ldmatrix."""
    packed, b = integers("s8", 16, 32), integers("s8", 8, 64)
    places, columns = sparse_rows(16, 64)
    dense = np.zeros((16, 64), np.int32)
    np.put_along_axis(dense, columns, packed.astype(np.int32), 1)
    bits = (places.reshape(16, 2, 16).astype(np.uint64) << np.arange(0, 32, 2, np.uint64)).sum(2)
    # Two columns side by side: a row of ldmatrix has two rows of them, a word for each lane.
    lanes = reordered_metadata(bits.astype(np.uint32), 16, 2).reshape(32, 1)
    got = run_mma(
        f"mma.{qualifier}.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32 {names('%r', 1, 4)}, "
        f"{names('%r', 10, 4)}, {names('%r', 14, 4)}, {names('%r', 1, 4)}, %r18, 0x0;",
        [fragments(packed), fragments(b), lanes],
        np.int32,
    )
    np.testing.assert_array_equal(got, dense @ b.astype(np.int32).T + 3)


@pytest.mark.parametrize("selector", [0, 1])
def test_sparse_mma_of_halves(selector):
    (packed, packed_values), (b, b_values) = halves("f16", 16, 16), halves("f16", 8, 32)
    places, columns = sparse_rows(16, 32)
    dense = np.zeros((16, 32), np.float32)
    np.put_along_axis(dense, columns, packed_values, 1)
    bits = (places.reshape(16, 2, 8).astype(np.uint64) << np.arange(0, 16, 2, np.uint64)).sum(2)
    both = np.zeros((32, 2), np.uint16)  # of two products, chosen by the selector
    both[16 * selector : 16 * selector + 16] = bits
    lanes = reordered_metadata(both, 32, 4).reshape(-1).view(np.uint32).reshape(32, 1)
    got = run_mma(
        f"mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {names('%f', 1, 4)}, "
        f"{names('%r', 10, 4)}, {names('%r', 14, 4)}, {names('%f', 1, 4)}, %r18, {selector};",
        [fragments(packed), fragments(b), lanes],
        np.float32,
    )
    np.testing.assert_array_equal(got, dense @ b_values.T + 3)


def test_metadata_that_does_not_rise():
    same = np.full((32, 1), 0b0101, np.uint32)
    with pytest.raises(Fault, match="do not rise"):
        run_mma(
            f"mma.sp.sync.aligned.m16n8k64.row.col.s32.s8.s8.s32 {names('%r', 1, 4)}, "
            f"{names('%r', 10, 4)}, {names('%r', 14, 4)}, {names('%r', 1, 4)}, %r18, 0;",
            [np.zeros((32, 8), np.uint32), same],
            np.int32,
        )


@pytest.mark.parametrize("trans", ["", ".trans"])
def test_matrices_to_shared_memory_and_back(trans):
    """stmatrix, then ldmatrix: what is transposed once and twice."""
    value = RANDOM.integers(0, 1 << 32, (32, 4), np.uint32)
    memory = GlobalMemory(1 << 16)
    data, out = memory.add(value), memory.add_result(512)
    body = f"""
\tmov.u32 %r0, %tid.x;
\tld.param.u64 %rd1, [p0];
\tld.param.u64 %rd2, [p1];
\tmul.wide.u32 %rd5, %r0, 16;
\tadd.s64 %rd3, %rd1, %rd5;
\tadd.s64 %rd4, %rd2, %rd5;
\tld.global.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd3];
\tmov.u32 %r5, tile;
\tshl.b32 %r6, %r0, 4;
\tadd.s32 %r7, %r5, %r6;
\tstmatrix.sync.aligned.m8n8.x4.shared.b16 [%r7], {{%r1, %r2, %r3, %r4}};
\tldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r11, %r12, %r13, %r14}}, [%r7];
\tst.global.v4.u32 [%rd4], {{%r11, %r12, %r13, %r14}};"""
    counters = launch(kernel(body, 2, shared=512), memory, (data, out))
    got = memory.result(out, 512)[0].view(np.uint32).reshape(32, 4)
    want = value
    if trans:
        matrices = np.ascontiguousarray(value.T).view(np.uint16).reshape(4, 8, 8)
        turned = np.ascontiguousarray(matrices.swapaxes(1, 2)).view(np.uint32)
        want = turned.reshape(4, 32).T
    np.testing.assert_array_equal(got, want)
    assert {t.per_request for t in counters.passes("ldmatrix", "stmatrix").values()} == {1.0}


def test_bank_conflicts():
    """Columns of words: a pass for each lane that meets a bank."""
    for stride, passes in ((4, 1), (8, 2), (128, 32), (132, 1)):
        body = f"""
\tmov.u32 %r0, %tid.x;
\tmul.lo.s32 %r1, %r0, {stride};
\tmov.u32 %r2, tile;
\tadd.s32 %r3, %r1, %r2;
\tst.shared.u32 [%r3], %r0;
\tld.shared.u32 %r4, [tile];"""
        counters = launch(kernel(body, 0, shared=32 * stride), GlobalMemory(1 << 16))
        assert [t.per_request for t in counters.passes("st").values()] == [passes]
        assert [t.per_request for t in counters.passes("ld").values()] == [1]


def test_sectors():
    for stride, sectors in ((4, 4), (8, 8), (32, 32)):
        body = f"""
\tmov.u32 %r0, %tid.x;
\tld.param.u64 %rd1, [p0];
\tmul.wide.u32 %rd2, %r0, {stride};
\tadd.s64 %rd3, %rd1, %rd2;
\tld.global.u32 %r1, [%rd3];"""
        memory = GlobalMemory(1 << 16)
        counters = launch(kernel(body), memory, (memory.add(np.zeros(1024, np.uint8)),))
        (traffic,) = counters.sectors.values()
        assert (traffic.requests, traffic.taken) == (1, sectors)
        assert counters.classes()["ld"] == 2


@pytest.mark.parametrize("width", [0, 32, 64, 128])
@pytest.mark.parametrize("kind", ["s8", "bf16"])
def test_wgmma(kind, width):
    """64 x 16 sums over 32 bytes of K, from shared memory in every layout of rows."""
    n = 16
    if kind == "s8":
        a, b = integers("s8", 64, 32), integers("s8", n, 32)
        want = a.astype(np.float64) @ b.astype(np.float64).T
    else:
        (a, a_values), (b, b_values) = halves("bf16", 64, 16), halves("bf16", n, 16)
        want = a_values @ b_values.T
    image = np.zeros(16384, np.uint8)
    for start, matrix in ((0, a), (8192, b)):
        raw = np.ascontiguousarray(matrix).view(np.uint8)
        row, byte = np.indices(raw.shape)
        if width:
            place = swizzle(start + row // 8 * 8 * width + row % 8 * width + byte, width)
        else:
            place = start + row // 8 * 256 + byte // 16 * 128 + row % 8 * 16 + byte % 16
        image[place] = raw
    mode = {0: 0, 128: 1, 64: 2, 32: 3}[width]
    stride = (8 * width if width else 256) >> 4
    high = mode << 30 | stride
    shape = "m64n16k32.s32.s8.s8" if kind == "s8" else "m64n16k16.f32.bf16.bf16"
    dtype, name, last = (np.int32, "%r", "") if kind == "s8" else (np.float32, "%f", ", 1, 1, 0, 0")
    stores = "".join(f"\tst.global.b32 [%rd4+{4 * i}], {name}{10 + i};\n" for i in range(8))
    body = f"""
\tmov.u32 %r0, %tid.x;
\tld.param.u64 %rd1, [p0];
\tld.param.u64 %rd2, [p1];
\tmul.wide.u32 %rd5, %r0, 128;
\tadd.s64 %rd3, %rd1, %rd5;
\tmov.u32 %r1, tile;
\tshl.b32 %r2, %r0, 7;
\tadd.s32 %r3, %r1, %r2;
\tmov.u32 %r4, 0;
$LCOPY:
\tld.global.v4.u32 {{%r5, %r6, %r7, %r8}}, [%rd3];
\tst.shared.v4.u32 [%r3], {{%r5, %r6, %r7, %r8}};
\tadd.s64 %rd3, %rd3, 16;
\tadd.s32 %r3, %r3, 16;
\tadd.s32 %r4, %r4, 1;
\tsetp.lt.s32 %p1, %r4, 8;
\t@%p1 bra $LCOPY;
\tfence.proxy.async.shared::cta;
\tbar.sync 0;
\tshr.u32 %r5, %r1, 4;
\tor.b32 %r5, %r5, {8 << 16};
\tadd.s32 %r6, %r5, 512;
\tmov.u32 %r9, {high};
\tmov.b64 %rd6, {{%r5, %r9}};
\tmov.b64 %rd7, {{%r6, %r9}};
\twgmma.fence.sync.aligned;
\tsetp.ne.s32 %p2, 0, 0;
\twgmma.mma_async.sync.aligned.{shape} {names(name, 10, 8)}, %rd6, %rd7, %p2{last};
\tsetp.eq.s32 %p2, 0, 0;
\twgmma.mma_async.sync.aligned.{shape} {names(name, 10, 8)}, %rd6, %rd7, %p2{last};
\twgmma.commit_group.sync.aligned;
\twgmma.wait_group.sync.aligned 0;
\tmul.wide.u32 %rd8, %r0, 32;
\tadd.s64 %rd4, %rd2, %rd8;
{stores}"""
    memory = GlobalMemory(1 << 16)
    data, out = memory.add(image), memory.add_result(128 * 32)
    counters = launch(kernel(body, 2, shared=16384), memory, (data, out), (128, 1, 1))
    lanes = memory.result(out, 4096)[0].view(dtype).reshape(4, 8, 4, 2, 2, 2)
    # Warp, row of 8, lane of a row, block of 8 columns, half of 16 rows, column of 2.
    got = lanes.transpose(0, 4, 1, 3, 2, 5).reshape(64, 16)
    np.testing.assert_array_equal(got, 2 * want)
    assert {t.per_request for t in counters.passes("wgmma").values()} == {1.0}


def tensor_map(**fields) -> TensorMap:
    plain = {"is_im2col": False, "width": 0, "lower": (0, 0), "upper": (0, 0), "box": ()}
    plain |= {"channels": 0, "pixels": 0}
    return TensorMap(**{**plain, **fields})


def test_tiles_of_a_tensor():
    data = RANDOM.integers(0, 256, (5, 7, 32))
    m = tensor_map(address=1000, sizes=(32, 7, 5), strides=(1, 32, 224), box=(16, 4, 2),
                   steps=(1, 1, 1))  # fmt: skip
    for start in ((0, 0, 0), (16, 5, 4), (-16, -2, -1), (24, 6, 3)):
        address, exists = m.tile(list(start))
        padded = np.zeros((20, 20, 64), int)
        padded[5:10, 5:12, 16:48] = data
        x, y, z = start[0] + 16, start[1] + 5, start[2] + 5
        want = padded[z : z + 2, y : y + 4, x : x + 16].reshape(8, 16)
        got = np.where(exists, data.reshape(-1)[(address - 1000) * exists], 0)
        np.testing.assert_array_equal(got, want)


def test_windows_of_an_image():
    """Each tap of a 3 x 2 convolution with padding, stride and dilation, in order of outputs."""
    n, h, w, c = 2, 6, 7, 32
    kernel_size, stride, padding, dilation = (3, 2), (2, 1), (1, 2), (1, 3)
    image = RANDOM.integers(0, 256, (n, h, w, c))
    padded = np.zeros((n, h + 2, w + 4, c), int)
    padded[:, 1:-1, 2:-2] = image
    out_h = (h + 2 * padding[0] - dilation[0] * (kernel_size[0] - 1) - 1) // stride[0] + 1
    out_w = (w + 2 * padding[1] - dilation[1] * (kernel_size[1] - 1) - 1) // stride[1] + 1
    count = n * out_h * out_w
    m = tensor_map(
        is_im2col=True, address=0, sizes=(c, w, h, n), strides=(1, c, w * c, h * w * c),
        steps=(1, stride[1], stride[0], 1), lower=(-padding[1], -padding[0]),
        upper=tuple(padding[i] - (kernel_size[i] - 1) * dilation[i] for i in (1, 0)),
        channels=16, pixels=count,
    )  # fmt: skip
    for tap_h in range(kernel_size[0]):
        for tap_w in range(kernel_size[1]):
            offset = [tap_w * dilation[1], tap_h * dilation[0]]
            address, exists = m.windows([16, -padding[1], -padding[0], 0], offset)
            got = np.where(exists, image.reshape(-1)[address * exists], 0)
            rows = padded[:, offset[1] :, offset[0] :][:, :: stride[0], :: stride[1]]
            want = rows[:, :out_h, :out_w, 16:32].reshape(count, 16)
            np.testing.assert_array_equal(got, want)


def test_bfloat16_is_there_and_back():
    bits, values = halves("bf16", 4, 8)
    np.testing.assert_array_equal(from_bfloat16(bits), values)
