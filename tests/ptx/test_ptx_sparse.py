"""wgmma.sp, and the packer whose images it reads, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from interpreter import Counters, Fault, GlobalMemory
from interpreter.tensor_map import swizzle
from ptx_text import kernel, launch

RANDOM = np.random.default_rng(7)
_B_AT = 8192  # in shared memory


def sparse_rows(rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights [rows, k / 2] and places [rows, k / 2], rising in every pair."""
    choices = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)])
    places = choices[RANDOM.integers(0, 6, (rows, k // 4))].reshape(rows, k // 2)
    return RANDOM.integers(-128, 128, (rows, k // 2)).astype(np.int8), places


def in_full(packed: np.ndarray, places: np.ndarray) -> np.ndarray:
    full = np.zeros((len(packed), 2 * packed.shape[1]), np.int32)
    columns = places + np.arange(packed.shape[1]) // 2 * 4
    np.put_along_axis(full, columns, packed.astype(np.int32), 1)
    return full


def words(places: np.ndarray) -> np.ndarray:
    """Return the word [128] of each thread for places [64, 32].

    By CUTLASS's ELayout_64x64, thread (t0, t1, t2, warp) of shape (2, 2, 8, 4) has row
    8 t0 + t2 + 16 warp, of the 64 inputs those from 32 t1 on: 16 stored values of two bits.
    """
    found = np.zeros(128, np.uint32)
    for thread in range(128):
        t0, t1, t2, warp = thread % 2, thread // 2 % 2, thread // 4 % 8, thread // 32
        for i in range(16):
            place = int(places[8 * t0 + t2 + 16 * warp, 16 * t1 + i])
            found[thread] |= np.uint32(place << (2 * i))
    return found


def shared_rows(image: np.ndarray, start: int, rows: np.ndarray, width: int, column: int) -> None:
    """Write rows of bytes into swizzled rows of `width` bytes, from a column on."""
    row, byte = np.indices(rows.shape)
    at = swizzle(start + row // 8 * 8 * width + row % 8 * width + column + byte, width)
    image[at] = rows.view(np.uint8)


def run_product(
    a: np.ndarray,
    b: np.ndarray,
    metadata: np.ndarray,
    widths: tuple[int, int],
    column: int,
    between: str = "",
) -> tuple[np.ndarray, Counters]:
    """Return sums [64, 16] of one wgmma.sp, run twice; a: [64, 32], b: [16, 64] bytes."""
    image = np.zeros(16384, np.uint8)
    shared_rows(image, 0, a, widths[0], 0)
    shared_rows(image, _B_AT, b, widths[1], column)
    mode = {128: 1, 64: 2, 32: 3}
    high = [mode[w] << 30 | (8 * w) >> 4 for w in widths]
    stores = "".join(f"\tst.global.b32 [%rd4+{4 * i}], %r{10 + i};\n" for i in range(8))
    shape = "m64n16k64.s32.s8.u8"
    registers = "{" + ", ".join(f"%r{10 + i}" for i in range(8)) + "}"
    product = f"wgmma.mma_async.sp.sync.aligned.{shape} {registers}, %rd6, %rd7, %r20, 0, %p2;"
    body = f"""
\tmov.u32 %r0, %tid.x;
\tld.param.u64 %rd1, [p0];
\tld.param.u64 %rd2, [p1];
\tld.param.u64 %rd10, [p2];
\tmul.wide.u32 %rd5, %r0, 128;
\tadd.s64 %rd3, %rd1, %rd5;
\tmul.wide.u32 %rd11, %r0, 4;
\tadd.s64 %rd12, %rd10, %rd11;
\tld.global.u32 %r20, [%rd12];
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
\tadd.s32 %r6, %r5, {(_B_AT + column) >> 4};
\tmov.u32 %r9, {high[0]};
\tmov.u32 %r2, {high[1]};
\tmov.b64 %rd6, {{%r5, %r9}};
\tmov.b64 %rd7, {{%r6, %r2}};
\twgmma.fence.sync.aligned;
\tsetp.ne.s32 %p2, 0, 0;
\t{product}
\tsetp.eq.s32 %p2, 0, 0;
\t{product}
\twgmma.commit_group.sync.aligned;
{between}\twgmma.wait_group.sync.aligned 0;
\tmul.wide.u32 %rd8, %r0, 32;
\tadd.s64 %rd4, %rd2, %rd8;
{stores}"""
    memory = GlobalMemory(1 << 16)
    data, out = memory.add(image), memory.add_result(128 * 32)
    addresses = (data, out, memory.add(metadata))
    counters = launch(kernel(body, 3, shared=16384), memory, addresses, (128, 1, 1))
    lanes = memory.result(out, 4096)[0].view(np.int32).reshape(4, 8, 4, 2, 2, 2)
    # Warp, row of 8, lane of a row, block of 8 columns, half of 16 rows, column of 2.
    return lanes.transpose(0, 4, 1, 3, 2, 5).reshape(64, 16), counters


@pytest.mark.parametrize(("widths", "column"), [((64, 128), 0), ((64, 128), 64), ((32, 64), 0)])
def test_sparse_wgmma(widths, column):
    """64 x 16 sums over 64 inputs, of which A stores 32; B from either half of a wide row."""
    packed, places = sparse_rows(64, 64)
    b = RANDOM.integers(0, 256, (16, 64)).astype(np.uint8)
    got, counters = run_product(packed, b, words(places), widths, column)
    np.testing.assert_array_equal(got, 2 * in_full(packed, places) @ b.astype(np.int32).T)
    assert {t.per_request for t in counters.passes("wgmma").values()} == {1.0}


def test_places_that_change_while_they_are_read():
    """Found on an H100: the next block's places came into the registers of a product under way."""
    packed, places = sparse_rows(64, 64)
    b = np.zeros((16, 64), np.uint8)
    with pytest.raises(Fault, match="a register written while tensor cores read it"):
        run_product(packed, b, words(places), (64, 128), 0, "\tmov.u32 %r20, 17;\n")


def test_places_that_do_not_rise():
    packed, places = sparse_rows(64, 64)
    metadata = words(places)
    metadata[77] = 0
    b = np.zeros((16, 64), np.uint8)
    with pytest.raises(Fault, match="do not rise"):
        run_product(packed, b, metadata, (64, 128), 0)


@pytest.mark.parametrize(("n", "k", "run"), [(64, 128, 128), (70, 144, 144), (5, 90, 10)])
def test_images_hold_the_weight(n, k, run, built):
    """Every weight is where a sparse tensor core looks for it, as the test above lays it out."""
    padded_run = -(-run // 16) * 16
    rows = RANDOM.integers(-127, 128, (n, k // run, run)).astype(np.int8)
    padded = np.zeros((n, k // run, padded_run), np.int8)
    quads = -(-run // 4)
    kept = RANDOM.random((n, k // run, quads, 4)).argsort(-1) < 2
    rows *= kept.reshape(n, k // run, -1)[..., :run]
    padded[..., :run] = rows
    k_padded = k // run * padded_run
    image = built.launchers.pack_two_of_four(rows.reshape(n, k), run, (padded_run, k_padded))
    panels, blocks = -(-n // 64), -(-k_padded // 128)
    parts = image.reshape(panels, blocks, -1)
    found = np.zeros((panels, 64, blocks, 128), np.int32)
    row, byte = np.indices((64, 64))
    for panel in range(panels):
        for block in range(blocks):
            values = parts[panel, block, swizzle(row * 64 + byte, 64)].view(np.int8)
            pairs = parts[panel, block, 4096:].copy().view(np.uint32).reshape(128, 2)
            for step in range(2):
                places = np.zeros((64, 32), np.int64)
                for thread in range(128):
                    t0, t1, t2, warp = thread % 2, thread // 2 % 2, thread // 4 % 8, thread // 32
                    bits = int(pairs[thread, step]) >> np.arange(0, 32, 2) & 3
                    places[8 * t0 + t2 + 16 * warp, 16 * t1 : 16 * t1 + 16] = bits
                assert (places[:, ::2] < places[:, 1::2]).all()
                full = in_full(values[:, 32 * step : 32 * step + 32], places)
                found[panel, :, block, 64 * step : 64 * step + 64] = full
    # Rows 16 w + 8 h + g of a panel are channels 16 w + 2 g + h.
    channels = found.reshape(panels, 4, 2, 8, -1).transpose(0, 1, 3, 2, 4).reshape(panels * 64, -1)
    np.testing.assert_array_equal(channels[:n, :k_padded], padded.reshape(n, -1))
    assert not channels[n:].any() and not channels[:, k_padded:].any()


@pytest.mark.parametrize("pixel", [64, 128])
@pytest.mark.parametrize(("n", "k", "run", "channels", "kept"), [
    (64, 128, 128, 64, 16), (200, 320, 64, 128, 16), (70, 192, 192, 64, 32),
    (300, 256, 128, 256, 9),
])  # fmt: skip
def test_gathered_images_hold_the_weight(n, k, run, channels, kept, pixel, built):
    """A pixel's bytes at the places times the kept weights: the product with the whole weight."""
    tiles = -(-n // channels)
    mask = RANDOM.random((tiles, k // 64, 64)).argsort(-1).argsort(-1) < kept
    weight = RANDOM.integers(-127, 128, (n, k)).astype(np.int8)
    weight *= mask.reshape(tiles, k).repeat(channels, 0)[:n]
    steps = built.launchers.gather_steps(weight, run, (run, k), channels)
    assert steps == (2 * kept + 31) // 32
    shape = (channels, steps, pixel)
    image = built.launchers.pack_gathered(weight, run, (run, k), shape)
    blocks, width = -(-k // 128), 32 * steps
    parts = image.reshape(tiles, blocks, channels * width + 128)
    x = np.zeros(blocks * 128, np.int64)
    x[:k] = RANDOM.integers(0, 256, k)
    row, byte = np.indices((channels, width))
    got = np.zeros((tiles, channels), np.int64)
    for tile in range(tiles):
        for block in range(blocks):
            part = parts[tile, block]
            rows = part[swizzle(row * width + byte, width)].view(np.int8).astype(np.int64)
            places = part[channels * width :].view(np.uint16)[:width].reshape(steps, 4, 8)
            # Lane t holds bytes 4 t to 4 t + 3, and 16 further on: places 0 to 3, and 4 to 7.
            order = places.reshape(steps, 4, 2, 4).transpose(0, 2, 1, 3).reshape(-1).astype(int)
            inputs = order // (pixel * 128) * pixel + order % (pixel * 128)
            assert (inputs < 128).all()
            got[tile] += rows @ x[block * 128 + inputs]
    # Rows lie as fragments: 8 j + 2 t + e of a panel of 32 is channel 8 t + 2 j + e.
    natural = got.reshape(-1, 4, 4, 2).transpose(0, 2, 1, 3).reshape(-1)
    np.testing.assert_array_equal(natural[:n], weight.astype(np.int64) @ x[:k])
    assert not natural[n:].any()


def test_too_many_kept_inputs_are_refused(built):
    full = np.ones((64, 128), np.int8)
    assert built.launchers.gather_steps(full, 128, (128, 128), 64) == 0


def test_images_of_other_zeros_are_refused(built):
    three = np.zeros((8, 32), np.int8)
    three[3, 4:7] = 1
    with pytest.raises(AssertionError, match="not 2:4"):
        built.launchers.pack_two_of_four(three, 32, (32, 32))
