"""Packed weights as csrc/cuda/prepack.cpp makes them (docs/layouts.md)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fastinfer.types.packed import (
    FLAG_COLUMNS,
    FORMS,
    HEADER_BYTES,
    LAYOUTS,
    OPS,
    PackedHeader,
    Unpacked,
    fragment_channels,
)

PANEL = 32
_ALIGNMENT, PADDING_AT = 64, 192  # csrc/packed.h: kSectionAlign, kPaddingOffset


def padded_run(run: int) -> int:
    """Return the bytes of K that a run of neighbouring channels takes."""
    return 4 if run <= 4 else -(-run // 16) * 16


def padded_k(header: PackedHeader) -> int:
    """Return the bytes of a row of B: whole 16."""
    return -(-header.k // header.run * padded_run(header.run) // 16) * 16


def pack_for_cuda(parts: Unpacked) -> tuple[np.ndarray, PackedHeader]:
    """Return the buffer of canonical parts for the CUDA kernels, and its header."""
    h = parts.header
    has_panels = OPS[h.op] != "depthwise_conv2d"
    sections = bytearray(HEADER_BYTES)
    panels = -(-h.n_per_group // PANEL)
    h = replace(
        h, layout=LAYOUTS.index("cuda"), form=FORMS.index("fragments") if has_panels else 0,
        nr=PANEL, panels_per_group=panels, run=h.c_per_group if OPS[h.op] == "conv2d" else h.k,
        flags=h.flags & ~FLAG_COLUMNS, index=0, index_bytes=0, pixels=0, residual_multiplier=0,
        table=0, weight_sum=0, float_bias=0,
    )  # fmt: skip

    def add(values: np.ndarray) -> int:
        start = len(sections)
        sections.extend(values.tobytes())
        sections.extend(bytes(-len(sections) % _ALIGNMENT))
        return start

    rows = _rows(parts, h) if has_panels else _columns(parts, h)
    h = replace(h, weight=add(rows), weight_bytes=rows.size)
    vectors = {n: getattr(parts, n) for n in ("bias", "multiplier", "residual_multiplier")}
    if parts.float_bias.numel():
        vectors["float_bias"] = parts.float_bias
        vectors["weight_sum"] = parts.weight.reshape(h.n, -1).sum(1, dtype=torch.int32)
    for name, vector in vectors.items():
        values = vector.numpy()
        if values.size:
            padded = np.zeros((h.groups, panels * PANEL), values.dtype)
            padded[:, : h.n_per_group] = values.reshape(h.groups, -1)
            h = replace(h, **{name: add(padded)})
    if parts.table.numel():
        h = replace(h, table=add(parts.table.numpy()))
    h = replace(h, total_bytes=len(sections))
    sections[:HEADER_BYTES] = h.to_bytes()
    sections[PADDING_AT:HEADER_BYTES] = bytes([h.x_zero_point]) * (HEADER_BYTES - PADDING_AT)
    return np.frombuffer(bytes(sections), np.uint8), h


def _rows(parts: Unpacked, h: PackedHeader) -> np.ndarray:
    """Return rows of K [groups, panels * 32, padded k] in the order of fragments."""
    weight = parts.weight.numpy()
    if OPS[h.op] == "conv2d":
        weight = weight.transpose(0, 2, 3, 1)
    runs = weight.reshape(h.groups, h.n_per_group, h.k // h.run, h.run)
    size = h.panels_per_group * PANEL
    natural = np.zeros((h.groups, size, h.k // h.run, padded_run(h.run)), np.int8)
    natural[:, : h.n_per_group, :, : h.run] = runs
    channels = fragment_channels(PANEL).numpy()
    order = (np.arange(h.panels_per_group)[:, None] * PANEL + channels).reshape(-1)
    rows = natural[:, order].reshape(h.groups, size, -1)
    return np.pad(rows, ((0, 0), (0, 0), (0, padded_k(h) - rows.shape[-1])))


def _columns(parts: Unpacked, h: PackedHeader) -> np.ndarray:
    """Return [kw][kh / 4][padded channels][4]: a word holds four taps of a column."""
    weight = parts.weight.numpy()[:, 0]
    quads = -(-h.kh // 4)
    padded = np.zeros((h.panels_per_group * PANEL, quads * 4, h.kw), np.int8)
    padded[: h.n, : h.kh] = weight
    return np.ascontiguousarray(padded.reshape(-1, quads, 4, h.kw).transpose(3, 1, 0, 2))
