"""What nvcc makes of plain CUDA C++ (features.cu) computes what numpy does."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from host.build import compile_ptx
from interpreter import Counters, GlobalMemory, Launch, Module, run
from interpreter.bfloat16 import bfloat16_bits, from_bfloat16

RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="session")
def features(compiler, tmp_path_factory) -> Module:
    source = Path(__file__).parent / "features.cu"
    folder = tmp_path_factory.mktemp("features")
    return Module(compile_ptx(source, "90a", folder))  # at once, not behind the pool's units


class Device:
    """Memory, and runs of kernels whose parameters are addresses and ints."""

    def __init__(self, module: Module):
        self.module = module
        self.memory = GlobalMemory(1 << 18)

    def run(self, name: str, threads: tuple[int, ...], *arguments: int, **more) -> Counters:
        kernel = self.module.kernel(name)
        content = bytearray(kernel.parameter_bytes)
        for parameter, value in zip(kernel.parameters, arguments, strict=True):
            struct.pack_into(
                "<q" if parameter.size == 8 else "<i", content, parameter.offset, value
            )
        block = (*threads, 1, 1)[:3]
        grid = more.pop("grid", (1, 1, 1))
        return run(kernel, Launch(grid, block, bytes(content), **more), self.memory)

    def result(self, address: int, count: int, dtype: type) -> np.ndarray:
        raw, written = self.memory.result(address, count * np.dtype(dtype).itemsize)
        assert written.all()
        return raw.view(dtype)


@pytest.fixture
def device(features) -> Device:
    return Device(features)


def integers(*shape: int) -> np.ndarray:
    return RANDOM.integers(-(2**31), 2**31, shape).astype(np.int32)


def wrapped(x: int, bits: int = 32) -> int:
    return (x + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def test_local_array(device):
    x = integers(32, 16)
    out = device.memory.add_result(128)
    device.run("local_array", (32,), device.memory.add(x), out)

    def expected(thread: int) -> int:
        held = [int(v) for v in x[thread]]
        at, total = int(x.reshape(-1)[thread]) & 15, 0
        for i in range(5):
            total = total * 3 + held[at]
            held[at] = i
            at = (at * 7 + 3) & 15
        return wrapped(total + held[at])

    assert device.result(out, 32, np.int32).tolist() == [expected(i) for i in range(32)]


def test_many_ways(device):
    """Every lane may go another way, and all meet again."""
    x = integers(64)
    out = device.memory.add_result(256)
    device.run("many_ways", (64,), device.memory.add(x), out)

    def quotient(v: int, by: int) -> int:
        return abs(v) // by * (1 if v >= 0 else -1)

    ways = (
        lambda v: v + 1,
        lambda v: v * 3,
        lambda v: quotient(v, 7),
        lambda v: v - quotient(v, 11) * 11,
        lambda v: ~v,
        lambda v: v << 3,
        lambda v: (v & 0xFFFFFFFF).bit_count(),
        lambda v: 32 - (v & 0xFFFFFFFF).bit_length(),
    )
    want = [wrapped(ways[v & 7](v)) for v in x.tolist()]
    assert device.result(out, 64, np.int32).tolist() == want


def test_sums(device):
    count = 200
    x = integers(count)
    out = device.memory.add_result(16)
    device.run("sums", (128,), device.memory.add(x), out, count, grid=(2, 1, 1))
    blocks = np.split(np.pad(x, (0, 256 - count)), 2)
    want = [v for b in blocks for v in (wrapped(int(b.astype(np.int64).sum())), int((b & 1).sum()))]
    assert device.result(out, 4, np.int32).tolist() == want


def test_turned(device):
    x = RANDOM.standard_normal((4, 6, 8)).astype(np.float32)
    out = device.memory.add_result(x.nbytes)
    device.run("turned", (8, 6, 4), device.memory.add(x), out, dynamic_shared=x.nbytes)
    exact = x.astype(np.float64) * 3 + np.arange(4).reshape(4, 1, 1) * 0.5
    want = exact.astype(np.float32).transpose(0, 2, 1)  # 3 x of 24 bits and halves are exact
    np.testing.assert_array_equal(device.result(out, x.size, np.float32).reshape(4, 8, 6), want)


def test_narrow(device):
    x = RANDOM.standard_normal(32).astype(np.float32) * 100
    b, h, back = (device.memory.add_result(32 * size) for size in (2, 2, 4))
    device.run("narrow", (32,), device.memory.add(x), b, h, back)
    np.testing.assert_array_equal(device.result(b, 32, np.uint16), bfloat16_bits(x))
    half = x.astype(np.float16)
    np.testing.assert_array_equal(device.result(h, 32, np.float16), half)
    want = from_bfloat16(bfloat16_bits(x)) + half.astype(np.float32)
    np.testing.assert_array_equal(device.result(back, 32, np.float32), want)


def test_dots(device):
    a, b = integers(32), integers(32).view(np.uint32)
    out = device.memory.add_result(256)
    device.run("dots", (32,), device.memory.add(a), device.memory.add(b), out)

    def expected(i: int, x: int, y: int) -> int:
        raw = (x & 0xFFFFFFFF).to_bytes(4, "little") + y.to_bytes(4, "little")
        signed = [v - 256 * (v > 127) for v in raw]
        dot = sum(p * q for p, q in zip(signed[:4], signed[4:], strict=True)) + 7
        turned = ((x & 0xFFFFFFFF) << 32 | y) << (i & 31) >> 32 & 0xFFFFFFFF
        permuted = int.from_bytes(bytes(raw[j] for j in (5, 4, 3, 2)), "little")
        quotient = abs(x * y) // (i + 3) * (1 if x >= 0 else -1)
        return wrapped(quotient + dot + (turned * y >> 32) + permuted, 64)

    want = [expected(i, int(x), int(y)) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    assert device.result(out, 32, np.int64).tolist() == want
