"""Single instructions against their meaning in plain Python integers and floats."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from interpreter import Fault, GlobalMemory
from ptx_text import kernel, launch, on_lanes

MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def signed(x: int, bits: int = 32) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def real(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits & MASK32))[0]


def bits_of(x: float) -> int:
    return int(np.float32(x).view(np.uint32))


def permute(a: int, b: int, selector: int) -> int:
    data = ((b & MASK32) << 32 | a & MASK32).to_bytes(8, "little")
    result = 0
    for i in range(4):
        pick = selector >> 4 * i & 15
        byte = data[pick & 7]
        result |= (255 * (byte >> 7) if pick & 8 else byte) << 8 * i
    return result


def bytes_dot(a: int, b: int, a_signed: bool, b_signed: bool) -> int:
    def parts(x: int, is_signed: bool) -> list[int]:
        values = (x & MASK32).to_bytes(4, "little")
        return [signed(v, 8) if is_signed else v for v in values]

    return sum(x * y for x, y in zip(parts(a, a_signed), parts(b, b_signed), strict=True))


def extract(x: int, at: int, size: int, is_signed: bool) -> int:
    at, size = at & 255, size & 255
    value = signed(x) if is_signed else x & MASK32
    field = value >> min(at, 63)
    if size == 0:
        return 0
    if size >= 32 or at + size > 32:
        return field
    return signed(field, size) if is_signed else field & ((1 << size) - 1)


def insert(a: int, b: int, at: int, size: int) -> int:
    at, size = at & 255, size & 255
    mask = (((1 << size) - 1) << at) & MASK32
    return b & ~mask | (a << at) & mask


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGER = {
    "add.s32 %r9, %r1, %r2;": lambda a, b, c: a + b,
    "sub.s32 %r9, %r1, %r2;": lambda a, b, c: a - b,
    "add.s16x2 %r9, %r1, %r2;": lambda a, b, c: (
        a + b & 0xFFFF | ((a >> 16) + (b >> 16) & 0xFFFF) << 16
    ),
    "mul.lo.s32 %r9, %r1, %r2;": lambda a, b, c: a * b,
    "mul.hi.u32 %r9, %r1, %r2;": lambda a, b, c: (a & MASK32) * (b & MASK32) >> 32,
    "mul.hi.s32 %r9, %r1, %r2;": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mad.lo.s32 %r9, %r1, %r2, %r3;": lambda a, b, c: a * b + c,
    "div.s32 %r9, %r1, %r2;": lambda a, b, c: truncated(signed(a), signed(b)),
    "div.u32 %r9, %r1, %r2;": lambda a, b, c: (a & MASK32) // (b & MASK32),
    "rem.s32 %r9, %r1, %r2;": lambda a, b, c: int(math.fmod(signed(a), signed(b))),
    "rem.u32 %r9, %r1, %r2;": lambda a, b, c: (a & MASK32) % (b & MASK32),
    "min.s32 %r9, %r1, %r2;": lambda a, b, c: min(signed(a), signed(b)),
    "max.u32 %r9, %r1, %r2;": lambda a, b, c: max(a & MASK32, b & MASK32),
    "abs.s32 %r9, %r1;": lambda a, b, c: abs(signed(a)),
    "neg.s32 %r9, %r1;": lambda a, b, c: -a,
    "not.b32 %r9, %r1;": lambda a, b, c: ~a,
    "xor.b32 %r9, %r1, %r2;": lambda a, b, c: a ^ b,
    "and.b32 %r9, %r1, 0xFF00FFU;": lambda a, b, c: a & 0xFF00FF,
    "shl.b32 %r9, %r1, %r3;": lambda a, b, c: a << (c & MASK32) if (c & MASK32) < 32 else 0,
    "shr.u32 %r9, %r1, %r3;": lambda a, b, c: (a & MASK32) >> min(c & MASK32, 40),
    "shr.s32 %r9, %r1, %r3;": lambda a, b, c: signed(a) >> min(c & MASK32, 40),
    "shr.s32 %r9, %r1, 7;": lambda a, b, c: signed(a) >> 7,
    "shf.r.wrap.b32 %r9, %r1, %r2, %r3;": (
        lambda a, b, c: ((b & MASK32) << 32 | a & MASK32) >> (c & 31)
    ),
    "shf.l.clamp.b32 %r9, %r1, %r2, %r3;": (
        lambda a, b, c: ((b & MASK32) << 32 | a & MASK32) << min(c & MASK32, 32) >> 32
    ),
    "bfe.u32 %r9, %r1, %r3, 5;": lambda a, b, c: extract(a, c, 5, False),
    "bfe.s32 %r9, %r1, %r3, 9;": lambda a, b, c: extract(a, c, 9, True),
    "bfi.b32 %r9, %r1, %r2, %r3, 7;": lambda a, b, c: insert(a, b, c, 7),
    "popc.b32 %r9, %r1;": lambda a, b, c: (a & MASK32).bit_count(),
    "clz.b32 %r9, %r1;": lambda a, b, c: 32 - (a & MASK32).bit_length(),
    "brev.b32 %r9, %r1;": lambda a, b, c: int(f"{a & MASK32:032b}"[::-1], 2),
    "lop3.b32 %r9, %r1, %r2, %r3, 0x96;": lambda a, b, c: a ^ b ^ c,
    "lop3.b32 %r9, %r1, %r2, %r3, 0xEA;": lambda a, b, c: (a & b) | c,
    "prmt.b32 %r9, %r1, %r2, %r3;": lambda a, b, c: permute(a, b, c),
    "prmt.b32 %r9, %r1, %r2, 0x7531;": lambda a, b, c: permute(a, b, 0x7531),
    "dp4a.u32.s32 %r9, %r1, %r2, %r3;": lambda a, b, c: bytes_dot(a, b, False, True) + c,
    "dp4a.s32.s32 %r9, %r1, %r2, %r3;": lambda a, b, c: bytes_dot(a, b, True, True) + c,
    "cvt.s32.s8 %r9, %r1;": lambda a, b, c: signed(a, 8),
    "cvt.u32.u16 %r9, %rs1;": lambda a, b, c: a & 0xFFFF,
    "cvt.sat.u8.s32 %r9, %r1;": lambda a, b, c: min(max(signed(a), 0), 255),
    "cvt.sat.s8.s32 %r9, %r1;": lambda a, b, c: min(max(signed(a), -128), 127),
    "mul.wide.u16 %r9, %rs1, %rs2;": lambda a, b, c: (a & 0xFFFF) * (b & 0xFFFF),
    "setp.lt.s32 %p1, %r1, %r2; selp.b32 %r9, %r1, %r2, %p1;": (
        lambda a, b, c: min(signed(a), signed(b))
    ),
    "setp.hi.u32 %p1|%p2, %r1, %r2; selp.u32 %r9, 1, 0, %p2;": (
        lambda a, b, c: (a & MASK32) <= (b & MASK32)
    ),
    "setp.eq.u32 %p2, 0, 0; setp.lt.and.s32 %p1, %r1, %r2, !%p2; selp.u32 %r9, 1, 0, %p1;": (
        lambda a, b, c: 0
    ),
    "mov.u32 %r9, 3; setp.lt.s32 %p1, %r1, 0; @!%p1 bra $L; mov.u32 %r9, 4; $L: ;": (
        lambda a, b, c: 4 if signed(a) < 0 else 3
    ),
    "mov.u32 %r9, 3; setp.lt.s32 %p1, %r1, 0; @%p1 add.s32 %r9, %r9, %r2;": (
        lambda a, b, c: 3 + b if signed(a) < 0 else 3
    ),
}
WIDE = {
    "mul.wide.s32 %rd0, %r1, %r2;": lambda a, b, c: signed(a) * signed(b),
    "mul.wide.u32 %rd0, %r1, %r2;": lambda a, b, c: (a & MASK32) * (b & MASK32),
    "mad.wide.s32 %rd0, %r1, %r2, %rd3;": lambda a, b, c: signed(a) * signed(b) + c,
    "mul.hi.u64 %rd0, %rd1, %rd2;": lambda a, b, c: a * b >> 64,
    "mul.lo.s64 %rd0, %rd1, %rd2;": lambda a, b, c: a * b,
    "div.s64 %rd0, %rd1, %rd2;": lambda a, b, c: truncated(signed(a, 64), signed(b, 64)),
    "rem.u64 %rd0, %rd1, %rd2;": lambda a, b, c: a % b,
    "shr.s64 %rd0, %rd1, 33;": lambda a, b, c: signed(a, 64) >> 33,
    "shl.b64 %rd0, %rd1, 12;": lambda a, b, c: a << 12,
    "cvt.s64.s32 %rd0, %r1;": lambda a, b, c: signed(a),
    "cvt.u64.u32 %rd0, %r1;": lambda a, b, c: a & MASK32,
    "mov.b64 %rd0, {%r1, %r2};": lambda a, b, c: (b & MASK32) << 32 | a & MASK32,
    "mov.b64 {%r4, %r5}, %rd1; mov.b64 %rd0, {%r5, %r4};": (
        lambda a, b, c: (a & MASK32) << 32 | a >> 32
    ),
    "bfi.b64 %rd0, %rd1, %rd2, 20, 30;": (
        lambda a, b, c: b & ~(((1 << 30) - 1) << 20) | (a & ((1 << 30) - 1)) << 20
    ),
}


def operands() -> np.ndarray:
    """Return [32, 3] values: random, small, and at the ends; no divisor is zero."""
    random = np.random.default_rng(7)
    values = random.integers(1, 1 << 63, (32, 3), np.uint64) | (
        random.integers(0, 2, (32, 3)).astype(np.uint64) << np.uint64(63)
    )
    values[0] = 0, 1, 0
    values[1] = 0x80000000, 7, 31
    values[2] = MASK64, 3, 32
    values[3] = 0x7FFFFFFF, 0xFFFFFFFE, 33
    values[4:16, 2] = np.arange(12) * 3
    values[16:20, :2] %= 1000
    values[:, 1] |= 1
    return values


@pytest.mark.parametrize("statement", INTEGER, ids=lambda s: s)
def test_32_bit(statement):
    x = operands()
    want = [int(INTEGER[statement](*map(int, row))) & MASK32 for row in x]
    assert on_lanes(statement, x, "b32").tolist() == want


@pytest.mark.parametrize("statement", WIDE, ids=lambda s: s)
def test_64_bit(statement):
    x = operands()
    want = [int(WIDE[statement](*map(int, row))) & MASK64 for row in x]
    assert on_lanes(statement, x, "b64").tolist() == want


SPECIAL = [0.0, -0.0, 1.5, 2.5, -2.5, 1e30, -1e30, 3e-42, math.inf, -math.inf, math.nan, 255.49]


def float_operands() -> np.ndarray:
    random = np.random.default_rng(8)
    values = random.standard_normal((32, 3)).astype(np.float32) * 100
    values[: len(SPECIAL), 0] = SPECIAL
    values[6:18, 1] = SPECIAL
    return values


def flushed(x: np.float32) -> np.float32:
    return np.copysign(np.float32(0), x) if abs(x) < np.finfo(np.float32).tiny else x


FLOAT = {
    "add.rn.f32 %f9, %f1, %f2;": lambda a, b, c: a + b,
    "sub.f32 %f9, %f1, %f2;": lambda a, b, c: a - b,
    "mul.rn.f32 %f9, %f1, %f2;": lambda a, b, c: a * b,
    "div.rn.f32 %f9, %f1, %f2;": lambda a, b, c: a / b,
    "min.f32 %f9, %f1, %f2;": lambda a, b, c: b if a != a else a if b != b else min(a, b),
    "max.f32 %f9, %f1, %f2;": lambda a, b, c: b if a != a else a if b != b else max(a, b),
    "neg.f32 %f9, %f1;": lambda a, b, c: -a,
    "add.ftz.f32 %f9, %f1, %f2;": lambda a, b, c: flushed(flushed(a) + flushed(b)),
    "mul.rn.ftz.f32 %f9, %f1, %f2;": lambda a, b, c: flushed(flushed(a) * flushed(b)),
    "abs.ftz.f32 %f9, %f1;": lambda a, b, c: abs(flushed(a)),
    "fma.rn.ftz.f32 %f9, %f1, 0f3F800000, %f2;": (lambda a, b, c: flushed(flushed(a) + flushed(b))),
    "{ .reg .f32 f<2>; mov.f32 f1, %f1; neg.f32 %f9, f1; }": lambda a, b, c: -a,
    "abs.f32 %f9, %f1;": lambda a, b, c: abs(a),
    "sqrt.rn.f32 %f9, %f1;": lambda a, b, c: np.sqrt(a),
    "cvt.rni.f32.f32 %f9, %f1;": lambda a, b, c: np.rint(a),
    "cvt.rn.f32.s32 %f9, %r1;": lambda a, b, c: np.float32(int(a.view(np.int32))),
    "setp.gt.f32 %p1, %f1, %f2; selp.f32 %f9, %f1, %f2, %p1;": lambda a, b, c: a if a > b else b,
    "setp.gtu.f32 %p1, %f1, %f2; selp.f32 %f9, %f1, %f2, %p1;": (
        lambda a, b, c: b if a <= b else a
    ),
    "cvt.rn.f16.f32 %rs3, %f1; cvt.f32.f16 %f9, %rs3;": lambda a, b, c: np.float16(a),
    "cvt.rn.bf16x2.f32 %r4, %f1, %f2; shl.b32 %r5, %r4, 16; mov.b32 %f9, %r5;": (
        lambda a, b, c: nearest_bf16(b)
    ),
}


def nearest_bf16(x: np.float32) -> np.float32:
    """Return the nearest float with 8 significant bits, half to even, by exact arithmetic."""
    if not np.isfinite(x) or x == 0:
        return x
    exponent = max(math.frexp(float(x))[1] - 8, -133)
    return np.float32(math.ldexp(round(math.ldexp(float(x), -exponent)), exponent))


@pytest.mark.parametrize("statement", FLOAT, ids=lambda s: s)
def test_float32(statement):
    x = float_operands()
    with np.errstate(all="ignore"):
        want = np.array([FLOAT[statement](*row) for row in x]).astype(np.float32)
    raw = x.view(np.uint32).astype(np.uint64)
    got = on_lanes(statement, raw, "f32")
    np.testing.assert_array_equal(got, want)


def test_fused_multiply_add_rounds_once():
    from fractions import Fraction

    random = np.random.default_rng(3)
    x = random.standard_normal((32, 3)).astype(np.float32)
    x[:, 2] = -(x[:, 0] * x[:, 1])  # what is left is the product's rounding error
    x[16:, 2] += np.float32(2.0**-20)
    got = on_lanes("fma.rn.f32 %f9, %f1, %f2, %f3;", x.view(np.uint32).astype(np.uint64), "f32")
    for (a, b, c), value in zip(x, got, strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        gaps = [abs(Fraction(float(np.nextafter(value, np.float32(d)))) - exact) for d in (-9, 9)]
        assert abs(Fraction(float(value)) - exact) <= min(gaps)


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("rni.s32", [0, 0, 2, 2, -2, 2**31 - 1, -(2**31), 0, 2**31 - 1, -(2**31), 0, 255]),
        ("rzi.s32", [0, 0, 1, 2, -2, 2**31 - 1, -(2**31), 0, 2**31 - 1, -(2**31), 0, 255]),
        ("rmi.s32", [0, 0, 1, 2, -3, 2**31 - 1, -(2**31), 0, 2**31 - 1, -(2**31), 0, 255]),
        ("rpi.u32", [0, 0, 2, 3, 0, MASK32, 0, 1, MASK32, 0, 0, 256]),
        ("rni.u8", [0, 0, 2, 2, 0, 255, 0, 0, 255, 0, 0, 255]),
    ],
)
def test_float_to_integer(kind, want):
    raw = float_operands().view(np.uint32).astype(np.uint64)
    got = on_lanes(f"cvt.{kind}.f32 %r9, %f1;", raw, "b32")[: len(want)]
    assert got.tolist() == [w & MASK32 for w in want]


def test_shuffles():
    x = operands()
    low = x[:, 0].astype(np.uint32)
    lane = np.arange(32)
    shuffles = {
        "bfly.b32 %r9, %r1, 5, 31": lane ^ 5,
        "down.b32 %r9, %r1, 3, 31": np.where(lane + 3 < 32, lane + 3, lane),
        "up.b32 %r9, %r1, 2, 0": np.where(lane >= 2, lane - 2, lane),
        "idx.b32 %r9, %r1, 9, 31": np.full(32, 9),
        # Segments of eight lanes.
        "down.b32 %r9, %r1, 3, 6175": np.where(lane % 8 + 3 < 8, lane + 3, lane),
    }
    for text, source in shuffles.items():
        got = on_lanes(f"shfl.sync.{text}, -1;", x, "b32")
        assert (got == low[source]).all(), text


def test_votes():
    x = operands()
    odd = (x[:, 2] & np.uint64(1)) == 1
    ask = "and.b32 %r4, %r3, 1; setp.ne.s32 %p1, %r4, 0;"
    ballot = on_lanes(f"{ask} vote.sync.ballot.b32 %r9, %p1, -1;", x, "b32")
    assert set(ballot.tolist()) == {sum(1 << i for i in range(32) if odd[i])}
    some = on_lanes(f"{ask} vote.sync.any.pred %p2, !%p1, -1; selp.u32 %r9, 1, 0, %p2;", x, "b32")
    assert set(some.tolist()) == {int((~odd).any())}
    total = on_lanes("redux.sync.add.s32 %r9, %r3, -1;", x, "b32")
    assert set(total.tolist()) == {int(x[:, 2].sum()) & MASK32}


def test_atomics():
    memory = GlobalMemory(1 << 16)
    counters = memory.add_result(16)
    old = memory.add_result(64 * 4)
    body = """
\tld.param.u64 %rd1, [p0];
\tld.param.u64 %rd2, [p1];
\tmov.u32 %r0, %tid.x;
\tsetp.ne.s32 %p1, %r0, 0;
\t@%p1 bra $LAFTER;
\tst.global.u32 [%rd1], 5;
\tst.global.u32 [%rd1+4], 0;
$LAFTER:
\tbar.sync 0;
\tatom.global.add.u32 %r1, [%rd1], 2;
\tred.global.max.s32 [%rd1+4], %r0;
\tmul.wide.u32 %rd3, %r0, 4;
\tadd.s64 %rd4, %rd2, %rd3;
\tst.global.u32 [%rd4], %r1;"""
    launch(kernel(body, 2), memory, (counters, old), threads=(64, 1, 1))
    assert memory.result(counters, 8)[0].view(np.uint32).tolist() == [5 + 128, 63]
    seen = memory.result(old, 256)[0].view(np.uint32)
    assert sorted(seen.tolist()) == list(range(5, 133, 2))


def test_three_dimensions():
    """Each thread of a 3-D grid of 3-D blocks writes its own place."""
    grid, block = (2, 3, 2), (4, 2, 8)
    count = math.prod(grid) * math.prod(block)
    body = """
\tld.param.u64 %rd1, [p0];
\tmov.u32 %r1, %ctaid.z; mov.u32 %r2, %nctaid.y; mov.u32 %r3, %ctaid.y;
\tmad.lo.s32 %r1, %r1, %r2, %r3;
\tmov.u32 %r2, %nctaid.x; mov.u32 %r3, %ctaid.x;
\tmad.lo.s32 %r1, %r1, %r2, %r3;
\tmov.u32 %r2, %ntid.z; mov.u32 %r3, %tid.z;
\tmad.lo.s32 %r1, %r1, %r2, %r3;
\tmov.u32 %r2, %ntid.y; mov.u32 %r3, %tid.y;
\tmad.lo.s32 %r1, %r1, %r2, %r3;
\tmov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
\tmad.lo.s32 %r1, %r1, %r2, %r3;
\tmul.wide.u32 %rd2, %r1, 4;
\tadd.s64 %rd3, %rd1, %rd2;
\tst.global.u32 [%rd3], %r1;"""
    memory = GlobalMemory(1 << 16)
    out = memory.add_result(4 * count)
    launch(kernel(body), memory, (out,), threads=block, grid=grid)
    assert memory.result(out, 4 * count)[0].view(np.uint32).tolist() == list(range(count))


def test_local_and_generic_memory():
    body = """
\t.local .align 8 .b8 depot[16];
\tld.param.u64 %rd1, [p0];
\tmov.u32 %r0, %tid.x;
\tmov.u64 %rd2, depot;
\tst.local.u32 [%rd2+8], %r0;
\tcvta.local.u64 %rd3, %rd2;
\tld.u32 %r1, [%rd3+8];
\tmov.u64 %rd4, tile;
\tcvta.shared.u64 %rd5, %rd4;
\tmul.wide.u32 %rd6, %r0, 4;
\tadd.s64 %rd7, %rd5, %rd6;
\tst.u32 [%rd7], %r1;
\tld.u32 %r2, [%rd7];
\tadd.s64 %rd8, %rd1, %rd6;
\tst.u32 [%rd8], %r2;"""
    memory = GlobalMemory(1 << 16)
    out = memory.add_result(128)
    launch(kernel(body, shared=128), memory, (out,))
    assert memory.result(out, 128)[0].view(np.uint32).tolist() == list(range(32))


@pytest.mark.parametrize(
    "statement",
    [
        "add.rz.f32 %f9, %f1, %f2;",
        "sin.approx.f32 %f9, %f1;",
        "bra.foo $L; $L: ;",
        "cvt.u32 %r9, %r1;",
        "shf.l.wrap.b32 %r9, %r1, %r2;",
        "mov.b32 %rd9, %r1;",
        "atom.global.foo.u32 %r9, [%rd5], %r1;",
    ],
)
def test_what_is_not_emulated_is_said(statement):
    with pytest.raises(Fault, match="unsupported: ") as found:
        on_lanes(statement, operands(), "b32")
    assert statement.split(";")[0] in str(found.value)
