"""The C++ launchers of csrc/cuda from Python: what they launch for a call, recorded."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_bool, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from interpreter import Kernel, Launch

KERNELS = ("mma", "wgmma", "sparse_wgmma", "gather_wgmma", "sparse_mma", "patch_wgmma")
SOURCES = ("matrix", "pixels", "windows", "narrow")


class Windows(ctypes.Structure):
    """gemm.h: a convolution's sizes."""

    _fields_ = [
        (name, c_int32)
        for name in (
            *("height", "width", "channels", "out_height", "out_width", "kh", "kw"),
            *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
        )
    ]


class GemmCall(ctypes.Structure):
    """gemm.h: one product. Pointers are addresses in the interpreter's memory."""

    _fields_ = [
        *((name, c_uint64) for name in ("x", "packed", "residual", "out")),
        *((name, c_int64) for name in ("m", "sparse")),
        *((name, c_int32) for name in ("n", "n_padded", "run", "run_padded", "k_padded")),
        *((name, c_int32) for name in ("groups", "device")),
        *((name, c_int32) for name in ("gather_channels", "gather_steps", "pixel_bytes")),
        ("windows", Windows),
        *(("row_scale", c_uint64), ("row_zero_point", c_uint64), ("rows_per_range", c_uint32)),
    ]


class GemmConfig(ctypes.Structure):
    """gemm.h: how a product is run."""

    _fields_ = [(name, c_int32) for name in ("kernel", "source", "block_m", "block_n", "cluster")]


class QuantizeCall(ctypes.Structure):
    """quantize.h: a float tensor to be quantized."""

    _fields_ = [
        *(("x", c_uint64), ("out", c_uint64), ("count", c_int64)),
        *(("inverse", c_float), ("low", c_float), ("high", c_float), ("zero_point", c_int32)),
        *(("images", c_int64), ("pixels", c_int64), ("channels", c_int32)),
        ("type", c_int32),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, POINTER(ctypes.c_uint32), POINTER(ctypes.c_void_p)
)


@dataclass
class Launchers:
    """The library that `build.link_launchers` makes; `kernels` finds a kernel by its name."""

    path: Path
    kernels: Callable[[str], Kernel]
    multiprocessors: int = 4
    _launched: list[tuple[Kernel, Launch]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._library = ctypes.CDLL(str(self.path))
        self._callback = _CALLBACK(self._record)
        for which, struct in enumerate((GemmCall, GemmConfig, QuantizeCall)):
            size = self._library.ptx_size(which)
            assert ctypes.sizeof(struct) == size, f"{struct.__name__} is {size} bytes in C++"

    def _record(self, name: bytes, sizes: ctypes.Array, arguments: ctypes.Array) -> None:
        kernel = self.kernels(name.decode())
        content = bytearray(kernel.parameter_bytes)
        for parameter, argument in zip(kernel.parameters, arguments, strict=False):
            end = parameter.offset + parameter.size
            content[parameter.offset : end] = ctypes.string_at(argument, parameter.size)
        x, y, z, threads_x, threads_y, threads_z, shared, cluster = sizes[:8]
        grid, block = (x, y, z), (threads_x, threads_y, threads_z)
        self._launched.append((kernel, Launch(grid, block, bytes(content), shared, cluster)))

    def launch(self, function: str, *arguments: Any) -> tuple[Kernel, Launch]:
        """Return what the one launch of a function of the library is."""
        self._launched.clear()
        self._library.ptx_set_recorder(self._callback, self.multiprocessors)
        error = getattr(self._library, function)(*arguments)
        assert error == 0, f"{function}: CUDA error {error}"
        (launched,) = self._launched
        return launched

    def gemm(self, call: GemmCall, config: GemmConfig) -> tuple[Kernel, Launch]:
        """Return what launch_mma or launch_wgmma launches."""
        return self.launch("ptx_launch_gemm", byref(call), byref(config))

    def depthwise(
        self, call: GemmCall, float_output: bool, strip: int, lanes: int
    ) -> tuple[Kernel, Launch]:
        """Return what launch_depthwise launches; 0 strip and lanes: those that are chosen."""
        numbers = (c_bool(float_output), strip, lanes)
        return self.launch("ptx_launch_depthwise", byref(call), *numbers)

    def quantize(self, call: QuantizeCall) -> tuple[Kernel, Launch]:
        """Return what launch_quantize, or of planes launch_quantize_planes, launches."""
        return self.launch(
            "ptx_launch_quantize_planes" if call.channels else "ptx_launch_quantize", byref(call)
        )

    @property
    def library(self) -> ctypes.CDLL:
        """The launchers' library."""
        return self._library

    def first_conv(self, call: GemmCall, multiprocessors: int) -> dict[str, int] | None:
        """Return how a first layer would run; None where its own kernel does not do it."""
        names = ("taps", "rows", "columns", "tiles_y", "tiles_x", "tiles", "in_rows", "pitch",
                 "blocks")  # fmt: skip
        numbers = (ctypes.c_int * len(names))()
        self._library.ptx_choose_first_conv.restype = c_bool
        found = self._library.ptx_choose_first_conv(byref(call), multiprocessors, numbers)
        return dict(zip(names, numbers, strict=True)) if found else None

    def row_source(self, call: GemmCall) -> int:
        """Return the index in SOURCES of how a product's rows can be read."""
        return self._library.ptx_row_source(byref(call))

    def pack_two_of_four(self, weight: np.ndarray, run: int, padded: tuple[int, int]) -> np.ndarray:
        """Return the image of rows [n, k] for sparse tensor cores; padded: run and K.

        Raises AssertionError where four neighbours hold more than two.
        """
        self._library.ptx_pack_two_of_four.restype = c_int64
        weight = np.ascontiguousarray(weight)
        rest = (*weight.shape, run, *padded)
        size = self._library.ptx_pack_two_of_four(c_void_p(weight.ctypes.data), *rest, None)
        assert size, "not 2:4"
        image = np.zeros(size, np.uint8)
        to = c_void_p(image.ctypes.data)
        self._library.ptx_pack_two_of_four(c_void_p(weight.ctypes.data), *rest, to)
        return image

    def gather_steps(self, weight: np.ndarray, run: int, padded: tuple[int, int], n: int) -> int:
        """Return the steps of 32 kept inputs that n neighbours of rows [n, k] need, or 0."""
        weight = np.ascontiguousarray(weight)
        at = c_void_p(weight.ctypes.data)
        return self._library.ptx_gather_steps(at, *weight.shape, run, *padded, n)

    def pack_gathered(
        self, weight: np.ndarray, run: int, padded: tuple[int, int], shape: tuple[int, int, int]
    ) -> np.ndarray:
        """Return the image of rows [n, k]; shape: channels, steps, bytes of a pixel's box."""
        self._library.ptx_pack_gathered.restype = c_int64
        weight = np.ascontiguousarray(weight)
        rest = (c_void_p(weight.ctypes.data), *weight.shape, run, *padded, *shape)
        image = np.zeros(self._library.ptx_pack_gathered(*rest, None), np.uint8)
        self._library.ptx_pack_gathered(*rest, c_void_p(image.ctypes.data))
        return image

    def pixel_bytes(self, run: int) -> int:
        """Return the bytes that a bulk copy takes of a pixel."""
        return self._library.ptx_pixel_bytes(run)
