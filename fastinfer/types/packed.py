"""The packed weight: one uint8 buffer with a self-describing header.

csrc/packed.h is the same header in C++; tests/types/test_packed.py holds the two together.
docs/layouts.md draws the bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields, replace

import torch

MAGIC = b"FIPK"
VERSION = 3
HEADER_BYTES = 256

OPS = ("linear", "conv2d", "depthwise_conv2d")
#: Index is the layout id of the header. "canonical" is row-major and belongs to no ISA.
LAYOUTS = ("canonical", "scalar", "avx2", "avx512", "avx512vnni", "amx", "cuda")

#: How a GEMM panel's weights lie; the index is the form of the header. docs/layouts.md draws them.
FORMS = ("rows", "pairs", "words", "tiles", "fragments", "sparse", "groups")

FLAG_FLOAT_OUTPUT = 1
FLAG_RESIDUAL = 2
FLAG_TABLE = 4
FLAG_DYNAMIC = 8
FLAG_UNBOUNDED = 16
FLAG_SMALL = 32
FLAG_WINOGRAD_SUMS = 64
FLAG_STRIDED = 128
FLAG_COLUMNS = 256

_STRUCT = struct.Struct("<4s17i2f2i11q")


#: Quads that a tile register holds.
TILE_QUADS = 16


def tile_steps(quads: int) -> tuple[int, int]:
    """Return how many steps of how many quads fill tile registers with `quads`, or with a few more.

    A step takes the same time whatever its quads; equal ones where two more steps are enough.
    """
    least = -(-quads // TILE_QUADS)
    for count in range(least, least + 3):
        if quads % count == 0:
            return count, quads // count
    return least, -(-quads // least)


@dataclass(frozen=True)
class PackedHeader:
    """The header's fields, in file order; offsets are bytes from the start of the buffer."""

    magic: bytes
    version: int
    op: int
    layout: int
    n: int
    k: int
    groups: int
    c_per_group: int
    kh: int
    kw: int
    nr: int
    panels_per_group: int
    x_zero_point: int
    out_zero_point: int
    qmin: int
    qmax: int
    flags: int
    form: int
    clamp_min: float
    clamp_max: float
    pixels: int
    run: int
    weight: int
    weight_bytes: int
    index: int
    index_bytes: int
    bias: int
    multiplier: int
    residual_multiplier: int
    table: int
    weight_sum: int
    float_bias: int
    total_bytes: int

    @property
    def panel_groups(self) -> int:
        """Groups that have panels of their own; those of form groups are over all channels."""
        return 1 if FORMS[self.form] == "groups" else self.groups

    @property
    def n_per_group(self) -> int:
        """Output channels of one of panel_groups."""
        return self.n // self.panel_groups

    @property
    def padded_n(self) -> int:
        """Length of the per-channel vectors: whole panels for every group."""
        return self.panel_groups * self.panels_per_group * self.nr

    @property
    def quads(self) -> int:
        """Groups of 4 products of one output; each run of products fills whole ones."""
        quads = (self.run + 3) // 4
        if FORMS[self.form] in ("tiles", "sparse"):
            steps, of_step = tile_steps(quads)
            quads = steps * of_step
        return self.k // self.run * quads

    @property
    def step_quads(self) -> int:
        """Quads of a run that a kernel takes at a time, in forms tiles and sparse."""
        return tile_steps((self.run + 3) // 4)[1]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the canonical weight."""
        if OPS[self.op] == "linear":
            return (self.n, self.k)
        return (self.n, self.c_per_group, self.kh, self.kw)

    def has(self, flag: int) -> bool:
        """Return True when the flag is set."""
        return bool(self.flags & flag)

    def to_bytes(self) -> bytes:
        """Return the HEADER_BYTES bytes that stand at the start of a buffer."""
        values = [getattr(self, f.name) for f in fields(self)]
        return _STRUCT.pack(*values).ljust(HEADER_BYTES, b"\0")


def read_header(packed: torch.Tensor) -> PackedHeader:
    """Return the header of a packed buffer; ValueError when it is none."""
    if packed.dtype != torch.uint8 or packed.dim() != 1 or packed.numel() < HEADER_BYTES:
        raise ValueError(
            f"read_header: packed: expected a 1-D uint8 buffer of at least {HEADER_BYTES} bytes, "
            f"got {packed.dtype} {list(packed.shape)}"
        )
    raw = bytes(packed[: _STRUCT.size].cpu().numpy().tobytes())
    header = PackedHeader(*_STRUCT.unpack(raw))
    if header.magic != MAGIC or header.version != VERSION:
        raise ValueError(
            f"read_header: packed: expected magic {MAGIC!r} version {VERSION}, "
            f"got {header.magic!r} version {header.version}; pack the weight again"
        )
    if packed.numel() != header.total_bytes:
        raise ValueError(
            f"read_header: packed: expected {header.total_bytes} bytes, got {packed.numel()}"
        )
    return header


@dataclass(frozen=True)
class Unpacked:
    """The canonical parts of a packed buffer. Vectors have length n; absent ones are empty."""

    header: PackedHeader
    weight: torch.Tensor
    bias: torch.Tensor
    multiplier: torch.Tensor
    residual_multiplier: torch.Tensor
    table: torch.Tensor
    float_bias: torch.Tensor


def few_rows_image(packed: torch.Tensor) -> torch.Tensor | None:
    """Return the packed buffer as calls of up to header.pixels rows read it; None: as all others.

    Of linear layers in form tiles that keep a sparse image, too.
    """
    packed = packed.cpu()
    header = read_header(packed)
    if FORMS[header.form] != "tiles" or header.index == 0:
        return None
    raw = bytes(packed[header.index : header.index + _STRUCT.size].numpy().tobytes())
    second = replace(PackedHeader(*_STRUCT.unpack(raw)), total_bytes=packed.numel())
    head = torch.frombuffer(bytearray(second.to_bytes()), dtype=torch.uint8)
    return torch.cat([head, packed[HEADER_BYTES:]])


def _section(packed: torch.Tensor, offset: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    size = torch.empty((), dtype=dtype).element_size()
    return packed[offset : offset + count * size].clone().view(dtype)


def _channels(header: PackedHeader, padded: torch.Tensor) -> torch.Tensor:
    """Drop the panel padding of a per-channel vector [padded_n] -> [n]."""
    width = header.panels_per_group * header.nr
    return (
        padded.view(header.panel_groups, width)[:, : header.n_per_group].reshape(header.n).clone()
    )


def fragment_channels(nr: int) -> torch.Tensor:
    """Return the channel of a panel that stands in each of its nr rows, in form fragments.

    A lane of a tensor core holds columns 2t and 2t + 1 of every 8. In this order what it holds of a
    panel are neighbouring channels: row 8j + 2t + e -> channel t * (nr / 4) + 2j + e.
    """
    row = torch.arange(nr)
    return (row % 8) // 2 * (nr // 4) + row // 8 * 2 + row % 2


def _fragment_weight(packed: torch.Tensor, h: PackedHeader) -> torch.Tensor:
    """Gather panels [nr][k / run][run padded to 4 or 16s] into [n, k]."""
    data = _section(packed, h.weight, h.weight_bytes, torch.int8)
    runs, width = h.k // h.run, 4 if h.run <= 4 else -(-h.run // 16) * 16
    panels = data.view(h.groups * h.panels_per_group, h.nr, -1)[..., : runs * width]
    panels = panels.reshape(-1, h.nr, runs, width)[..., : h.run]
    rows = torch.empty_like(panels)
    rows[:, fragment_channels(h.nr)] = panels
    return rows.reshape(h.groups, -1, h.k)[:, : h.n_per_group].reshape(h.n, h.k)


def _sparse_rows(packed: torch.Tensor, h: PackedHeader) -> torch.Tensor:
    """Put the picked products of every panel back in place: [panels, quads, nr, 4]."""
    panels, steps = h.groups * h.panels_per_group, h.quads // h.step_quads
    vectors, width = h.nr // 16, h.step_quads * 4
    starts = _section(packed, h.index, panels, torch.int32)
    picks = _section(packed, h.index + panels * 4, panels * steps, torch.uint8).long()
    entries = _section(packed, h.weight, h.weight_bytes, torch.int8).view(-1, 1 + vectors, 16, 4)
    assert starts.tolist() == [(1 + vectors) * int(n) for n in _sums_before(picks.view(panels, -1))]
    # The step of each quad, and its lanes' products there.
    step = torch.repeat_interleave(torch.arange(panels * steps), picks)
    at = step.view(-1, 1, 1) * width + entries[:, 0].long()
    out = torch.zeros(16, vectors, panels * steps * width, dtype=torch.int32)
    for lane in range(16):
        for v in range(vectors):
            weights = entries[:, 1 + v, lane].to(torch.int32)
            out[lane, v].index_add_(0, at[:, lane].reshape(-1), weights.reshape(-1))
    rows = out.view(16, vectors, panels, h.quads, 4).permute(2, 3, 1, 0, 4)
    return rows.reshape(panels, h.quads, h.nr, 4)


def _sums_before(counts: torch.Tensor) -> list[int]:
    """Return the sum of all rows above each one."""
    sums = counts.sum(1)
    return [int(n) for n in sums.cumsum(0) - sums]


def _gemm_weight(packed: torch.Tensor, h: PackedHeader) -> torch.Tensor:
    """Gather panels [entry][nr][4] into [n, k]; entries of one k-group add up."""
    if FORMS[h.form] == "fragments":
        return _fragment_weight(packed, h)
    k4 = h.quads
    panels = h.panel_groups * h.panels_per_group
    if FORMS[h.form] == "words":
        words = _section(packed, h.weight, h.weight_bytes // 2, torch.int16)
        rows = words.view(panels, k4, 2, h.nr, 2).transpose(2, 3).reshape(panels, k4, h.nr, 4)
    elif FORMS[h.form] == "sparse":
        rows = _sparse_rows(packed, h)
    elif FORMS[h.form] != "pairs":
        data = _section(packed, h.weight, h.weight_bytes, torch.int8)
        rows = data.view(panels, k4, h.nr, 4).to(torch.int32)
    else:
        data = _section(packed, h.weight, h.weight_bytes, torch.int8)
        rows = torch.zeros(panels, k4, h.nr, 4, dtype=torch.int32)
        index = _section(packed, h.index, h.index_bytes // 4, torch.int32)
        table = index[: panels * 3].view(panels, 3).tolist()
        offsets = index[panels * 3 :]
        entries = data.view(-1, h.nr, 4).to(torch.int32)
        for p, (start, pairs, singles) in enumerate(table):
            count = 2 * pairs + singles
            k_group = offsets[start : start + count].long() // 4
            rows[p].index_add_(0, k_group, entries[start : start + count])
    matrix = rows.permute(0, 2, 1, 3).reshape(h.panel_groups, -1, k4 * 4)
    runs = matrix.reshape(*matrix.shape[:2], h.k // h.run, -1)[..., : h.run]
    return runs[:, : h.n_per_group].reshape(h.n, h.k).to(torch.int8)


def depthwise_lane_order(lanes: int) -> torch.Tensor:
    """Return the channel held by each int32 lane of a depthwise block of `lanes` channels.

    Byte interleaving works inside 16-byte groups, so a vector of lanes/4 int32 lanes holds four
    neighbouring channels of every group: vector v, lane j -> channel (j // 4) * 16 + v * 4 + j % 4.
    """
    per_vector = lanes // 4
    v = torch.arange(4).view(4, 1)
    j = torch.arange(per_vector).view(1, per_vector)
    return ((j // 4) * 16 + v * 4 + j % 4).reshape(-1)


def _depthwise_order(h: PackedHeader) -> torch.Tensor:
    """Return the channel of a block that stands at each of its nr places."""
    is_natural = h.nr < 16 or LAYOUTS[h.layout] == "cuda"
    return torch.arange(h.nr) if is_natural else depthwise_lane_order(h.nr)


def _depthwise_vector(h: PackedHeader, padded: torch.Tensor) -> torch.Tensor:
    """Undo the order of a depthwise per-channel vector [padded_n] -> [n]."""
    order = _depthwise_order(h)
    blocks = padded.view(-1, h.nr)
    out = torch.empty_like(blocks)
    out[:, order] = blocks
    return out.reshape(-1)[: h.n].clone()


def _depthwise_weight(packed: torch.Tensor, h: PackedHeader) -> torch.Tensor:
    """Gather blocks [tap group][lane][taps] (int16 pairs or int8 quads) into [n, taps].

    CUDA: [kw][kh / 4][channel][4], words of four taps of a column.
    """
    if LAYOUTS[h.layout] == "cuda":
        data = _section(packed, h.weight, h.weight_bytes, torch.int8)
        words = data.view(h.kw, -1, h.padded_n, 4).permute(2, 1, 3, 0)
        return words.reshape(h.padded_n, -1, h.kw)[: h.n, : h.kh].reshape(h.n, h.k)
    blocks = h.panels_per_group
    if LAYOUTS[h.layout] in ("avx2", "avx512"):
        group, dtype = 2, torch.int16
    elif LAYOUTS[h.layout] in ("avx512vnni", "amx"):
        group, dtype = 4, torch.int8
    else:
        group, dtype = 1, torch.int8
    groups = (h.k + group - 1) // group
    size = 2 if dtype == torch.int16 else 1
    data = _section(packed, h.weight, h.weight_bytes // size, dtype)
    lanes = data.view(blocks, groups, h.nr, group).permute(0, 2, 1, 3).reshape(blocks, h.nr, -1)
    if group == 4 and h.kh == 3 and h.kw <= 3:  # by columns: three rows of each, and 0
        lanes = lanes.view(blocks, h.nr, h.kw, 4)[..., :3].transpose(2, 3).flatten(2)
    out = torch.empty_like(lanes)
    out[:, _depthwise_order(h)] = lanes
    return out.reshape(blocks * h.nr, -1)[: h.n, : h.k].to(torch.int8)


def unpack(packed: torch.Tensor) -> Unpacked:
    """Return the canonical parts of a packed buffer of any layout."""
    packed = packed.cpu()
    h = read_header(packed)
    is_depthwise = OPS[h.op] == "depthwise_conv2d"
    canonical = LAYOUTS[h.layout] == "canonical"
    if canonical:
        weight = _section(packed, h.weight, h.n * h.k, torch.int8)
    elif is_depthwise:
        weight = _depthwise_weight(packed, h)
    else:
        weight = _gemm_weight(packed, h)
    if not canonical and h.has(FLAG_COLUMNS):  # packed k runs over (kw, kh, c)
        weight = weight.view(h.n, h.kw, h.kh, h.c_per_group).permute(0, 3, 2, 1)
    elif not canonical and OPS[h.op] == "conv2d":  # over (kh, kw, c)
        weight = weight.view(h.n, h.kh, h.kw, h.c_per_group).permute(0, 3, 1, 2)
    weight = weight.reshape(h.weight_shape).contiguous()

    def vector(offset: int, dtype: torch.dtype) -> torch.Tensor:
        if offset == 0:
            return torch.empty(0, dtype=dtype)
        padded = _section(packed, offset, h.padded_n, dtype)
        return _depthwise_vector(h, padded) if is_depthwise else _channels(h, padded)

    table = _section(packed, h.table, 256, torch.uint8) if h.table else torch.empty(0).byte()
    return Unpacked(
        h,
        weight,
        vector(h.bias, torch.int32),
        vector(h.multiplier, torch.float32),
        vector(h.residual_multiplier, torch.float32),
        table,
        vector(h.float_bias, torch.float32),
    )
