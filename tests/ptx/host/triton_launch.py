"""Triton kernels' launchers on CPU tensors: launches are compiled for a GPU and interpreted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton
from interpreter import BEHIND, Counters, GlobalMemory, Kernel, Launch, Module, run
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .runs import Mismatch

WARP = 32
_POINTERS = {
    torch.uint8: "*u8", torch.int8: "*i8", torch.int32: "*i32", torch.float32: "*fp32",
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float8_e4m3fn: "*fp8e4nv",
}  # fmt: skip
_SCALARS = {"i32": np.int32, "fp32": np.float32}


@dataclass
class Interpreted:
    """Stands for a jit function: kernel[grid](...) runs its PTX and fills the result tensors.

    change: applied to the PTX, to make mistakes. arch: that it is compiled for, 80 or 90.
    """

    kernel: Any
    order: str = BEHIND
    change: Callable[[str], str] | None = None
    arch: int = 80
    launches: list[Counters] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(
            *arguments: Any, num_warps: int = 4, num_stages: int = 3, **options: Any
        ) -> None:
            names = self.kernel.arg_names
            assert len(arguments) == len(names)
            given = dict(zip(names, arguments, strict=True))
            kinds = {name: _kind(self.kernel, name, value) for name, value in given.items()}
            constants = {n: v for n, v in given.items() if kinds[n] == "constexpr"}
            aligned = tuple(n for n, v in given.items() if kinds[n] != "constexpr" and _is_16(v))
            kernel, shared = _compile(
                self.kernel, tuple(kinds.items()), tuple(constants.items()), aligned,
                (num_warps, num_stages), tuple(options.items()), self.change,
                self.arch,
            )  # fmt: skip
            varying = {n: v for n, v in given.items() if n not in constants}
            self._run(kernel, shared, (*grid, 1, 1)[:3], num_warps, varying)

        return launch

    def _run(
        self, kernel: Kernel, shared: int, grid: tuple[int, int, int], warps: int,
        arguments: dict[str, Any],
    ) -> None:  # fmt: skip
        memory = GlobalMemory(1 << 22)
        places = _place(memory, arguments)
        parameters = bytearray(kernel.parameter_bytes)  # the last two, of scratch memory, are null
        for parameter, value in zip(kernel.parameters, arguments.values(), strict=False):
            if isinstance(value, Tensor):
                content = np.uint64(places[value.data_ptr()]).tobytes()
            else:
                content = _SCALARS["fp32" if isinstance(value, float) else "i32"](value).tobytes()
            assert len(content) == parameter.size
            parameters[parameter.offset : parameter.offset + parameter.size] = content
        launch = Launch(grid, (warps * WARP, 1, 1), bytes(parameters), shared)
        self.launches.append(run(kernel, launch, memory, order=self.order, equal_writes=True))
        for name in _results(arguments):
            _fetch(memory, places[arguments[name].data_ptr()], arguments[name])


def _kind(kernel: Any, name: str, value: Any) -> str:
    """Return Triton's name of an argument's type; "constexpr" too for what it makes constant."""
    if kernel.params[kernel.arg_names.index(name)].is_constexpr:
        return "constexpr"
    if isinstance(value, Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "constexpr" if value == 1 else "i32"


def _results(arguments: dict[str, Any]) -> tuple[str, ...]:
    """Return which tensors a kernel writes; all others are read-only."""
    of_rows = ("scale_ptr", "zero_point_ptr")
    return ("out_ptr", *of_rows) if "zero_point_ptr" in arguments else ("out_ptr",)


def _is_16(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.data_ptr() % 16 == 0
    return isinstance(value, int) and value % 16 == 0


@cache
def _compile(
    kernel: Any,
    kinds: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, Any], ...],
    aligned: tuple[str, ...],
    sizes: tuple[int, int],
    options: tuple[tuple[str, Any], ...],
    change: Callable[[str], str] | None,
    arch: int,
) -> tuple[Kernel, int]:
    """Return a kernel, and its bytes of dynamic shared memory."""
    attributes = {(i,): [["tt.divisibility", 16]] for i, (n, _) in enumerate(kinds) if n in aligned}
    source = ASTSource(
        fn=kernel, signature=dict(kinds), constexprs=dict(constants), attrs=attributes
    )
    made = triton.compile(
        source,
        target=GPUTarget("cuda", arch, WARP),
        options={"num_warps": sizes[0], "num_stages": sizes[1], **dict(options)},
    )
    text = made.asm["ptx"]
    changed = text if change is None else change(text)
    assert change is None or changed != text, "what is to be changed is not there"
    module = Module(changed)
    (name,) = module.names
    return module.kernel(name), made.metadata.shared


def _place(memory: GlobalMemory, arguments: dict[str, Any]) -> dict[int, int]:
    """Return where tensors are in the interpreter's memory, by their data_ptr."""
    tensors = {name: t for name, t in arguments.items() if isinstance(t, Tensor)}
    results = {tensors[name].data_ptr() for name in _results(arguments)}
    places: dict[int, int] = {}
    for t in tensors.values():
        at = t.data_ptr()
        if at in places:
            continue
        span = sum((s - 1) * step for s, step in zip(t.shape, t.stride(), strict=True)) + 1
        offset = at % 16
        if at in results:
            places[at] = memory.add_result(span * t.element_size(), offset)
        else:
            dense = t.as_strided((span,), (1,)).view(torch.uint8)
            places[at] = memory.add(dense.numpy(), offset)
    return places


def _fetch(memory: GlobalMemory, place: int, t: Tensor) -> None:
    size = t.numel() * t.element_size()
    got, written = memory.result(place, size)
    if not written.all():
        raise Mismatch(f"{int((~written).sum())} of {size} bytes were not written")
    t.view(-1).view(torch.uint8).copy_(torch.from_numpy(got))


def launch(
    module: Any, *arguments: Any, order: str = BEHIND, change: Callable[[str], str] | None = None,
    arch: int = 80, **named: Any,
) -> Any:  # fmt: skip
    """Return what the launcher of a module returns, its kernel interpreted.

    The sum of a product's parts, which some launch too, is interpreted unchanged.
    """
    op = module.__name__.rpartition(".")[2]
    split_k = import_module("fastinfer.kernels.split_k")
    kernel = Interpreted(getattr(module, f"_{op}_kernel"), order, change, arch)
    sums = Interpreted(split_k._sum_parts_kernel, order, None, arch)
    with (
        mock.patch.object(module, f"_{op}_kernel", kernel),
        mock.patch.object(split_k, "_sum_parts_kernel", sums),
    ):
        result = getattr(module, op)(*arguments, **named)
    assert kernel.launches
    assert all(counters.issued.any() for counters in (*kernel.launches, *sums.launches))
    return result


def reference(module: Any) -> Callable[..., Any]:
    """Return the reference of a module's op."""
    return getattr(module, module.__name__.rpartition(".")[2] + "_ref")
