"""Defines the catalog's ops in torch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fastinfer.ops.spec import NAMESPACE, OpSpec

_TAGS = (torch.Tag.pt2_compliant_tag,)


def register(ops: Sequence[OpSpec], kernels_only: Sequence[str]) -> torch.library.Library:
    """Define every op's schema, fake and reference; return the library, which owns them.

    kernels_only: schemas of ops that only compiled kernels serve.

    A compiled kernel registered for a device takes precedence there over the reference.
    """
    library = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    for op in ops:
        library.define(op.name + op.schema, tags=_TAGS)  # type: ignore[no-untyped-call]
        fallback = "CompositeExplicitAutograd"
        library.impl(op.name, op.reference, fallback)  # type: ignore[no-untyped-call]
        torch.library.register_fake(op.qualified_name, op.fake, lib=library)
    for schema in kernels_only:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def bind_triton(
    ops: Sequence[OpSpec], has_kernel: Callable[[str], bool]
) -> tuple[torch.library.Library, tuple[str, ...]]:
    """Bind launchers to CUDA tensors for ops without a CUDA kernel; return the names of these.

    has_kernel: qualified name -> whether a CUDA kernel serves it. To be called once, after compiled
    kernels have been loaded, where torch has CUDA and Triton is there; the library owns what it
    binds.
    """
    library = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    bound = [op for op in ops if op.triton is not None and not has_kernel(op.qualified_name)]
    for op in bound:
        library.impl(op.name, op.triton, "CUDA")  # type: ignore[no-untyped-call]
    return library, tuple(op.name for op in bound)
