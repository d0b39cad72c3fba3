"""cp.async.bulk.tensor: boxes of a tensor, copied by a block's copy engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..decode import Instruction
from ..faults import MISALIGNED, RACE, UNSUPPORTED, Fault
from ..machine import Act, Machine
from ..operands import Address, Vector
from ..tensor_map import MAP_BYTES, TensorMap, swizzle
from .load_store import read_object
from .table import only

_MODIFIERS = (
    *("async", "bulk", "tensor", "1d", "2d", "3d", "4d", "5d", "im2col", "tile", "global"),
    *("shared::cluster", "shared::cta", "mbarrier::complete_tx::bytes", "multicast::cluster"),
)
#: A box starts on a multiple of this in shared memory, a map in global memory or parameters.
_BOX_ALIGNMENT, _MAP_ALIGNMENT = 128, 64


@dataclass(frozen=True)
class _Box:
    """One copy: bytes [rows, row bytes], where they go, the barrier that counts them."""

    data: np.ndarray
    target: int
    barrier: int
    width: int  # of swizzled rows


def bind_bulk_copy(ins: Instruction, m: Machine) -> Act:
    """Return the act of a copy from global to shared memory, tiled or im2col."""
    only(ins, *_MODIFIERS)
    source = ins.operands[1]
    if "tensor" not in ins.modifiers or not isinstance(source, Address):
        raise Fault(UNSUPPORTED, f"{ins.text} is not emulated")
    to, map_address, barrier = (m.address(ins.operands[i]) for i in (0, 1, 2))
    place = [m.value(name, np.int32) for name in source.coordinates]
    rest = list(ins.operands[3:])
    offset = []
    if "im2col" in ins.modifiers:
        vector = rest.pop(0)
        assert isinstance(vector, Vector)
        offset = [m.value(name, np.uint16) for name in vector.items]
    blocks = m.value(rest.pop(0), np.uint16) if "multicast::cluster" in ins.modifiers else None

    def of_lane(value: np.ndarray, lane: int) -> int:
        return int(np.broadcast_to(value, m.lanes)[lane])

    def copy() -> None:
        lanes = np.flatnonzero(m.mask).tolist()
        for lane, target, at, map_at in zip(lanes, to(), barrier(), map_address(), strict=True):
            tensor = _tensor_map(m, int(map_at))
            start, taps = ([of_lane(v, lane) for v in values] for values in (place, offset))
            where, exists = tensor.windows(start, taps) if offset else tensor.tile(start)
            data = np.zeros(where.shape, np.uint8)
            data[exists] = m.memory.read(where[exists], 1)[:, 0]
            box = _Box(data, int(target), int(at), tensor.width)
            ranks = None if blocks is None else of_lane(blocks, lane)
            for owner in _owners(m, int(m.block[lane]), ranks):
                _begin(m, ins, lane, owner, box)

    return copy


def _tensor_map(m: Machine, address: int) -> TensorMap:
    if address % _MAP_ALIGNMENT != 0:
        raise Fault(MISALIGNED, f"a tensor map at {address:#x}")
    words = address + np.arange(0, MAP_BYTES, 8)
    return TensorMap.read(read_object(m, words, 8).tobytes())


def _owners(m: Machine, block: int, ranks: int | None) -> list[int]:
    """Return the blocks that a copy goes to: its own, or those of its cluster whose bit is set."""
    if ranks is None:
        return [block]
    first = block // m.launch.cluster * m.launch.cluster
    return [first + rank for rank in range(m.launch.cluster) if ranks >> rank & 1]


def _begin(m: Machine, ins: Instruction, lane: int, owner: int, box: _Box) -> None:
    """Begin a copy to a block; it ends when the scheduler calls its delivery."""
    block, warp = int(m.block[lane]), int(m.warp[lane])
    if box.target % _BOX_ALIGNMENT != 0:
        raise Fault(MISALIGNED, f"a box at shared {box.target:#x}")
    if not m.mbarriers.find(owner, box.barrier, (block, warp)).is_fenced:
        raise Fault(RACE, "a bulk copy for an mbarrier, no fence after its initialisation")
    size = box.data.size
    address = swizzle(box.target + np.arange(size), box.width)
    at = m.shared.place(address, 1, np.full(size, owner))
    clocks = m.shared.clocks
    clocks.check_write(at, np.full(size, block), np.full(size, warp), is_async=True)
    clocks.stamp_pending_write(at)
    m.deliveries.append((ins, lambda: _end(m, owner, box, at)))


def _end(m: Machine, owner: int, box: _Box, at: np.ndarray) -> None:
    """End a copy: its bytes are there, and the barrier of the block that holds them knows."""
    clocks = m.shared.clocks
    clocks.tick(owner, clocks.engine)
    column = clocks.column(owner, clocks.engine)
    now = int(clocks.known[owner, clocks.engine, column])
    m.shared.put(at, box.data.reshape(-1, 1))
    clocks.stamp_async_write(at, column, now)
    m.mbarriers.complete(owner, box.barrier, box.data.size, column, now)
