"""cp.async.bulk.tensor: boxes of a tensor, copied by a block's copy engine."""

from __future__ import annotations

import numpy as np

from ..decode import Instruction
from ..faults import MISALIGNED, RACE, UNSUPPORTED, Fault
from ..machine import Act, Machine
from ..operands import Address, Vector
from ..tensor_map import MAP_BYTES, TensorMap, swizzle
from .load_store import read
from .table import only

_MODIFIERS = (
    *("async", "bulk", "tensor", "1d", "2d", "3d", "4d", "5d", "im2col", "tile", "global"),
    *("shared::cluster", "shared::cta", "mbarrier::complete_tx::bytes", "multicast::cluster"),
)
#: A box starts on a multiple of this in shared memory.
_BOX_ALIGNMENT = 128


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

    def copy() -> None:
        lanes = np.flatnonzero(m.mask)
        targets, barriers, addresses = to(), barrier(), map_address()
        for i, lane in enumerate(lanes.tolist()):
            one = np.zeros_like(m.mask)
            one[lane] = True
            whole, m.mask = m.mask, one
            raw = _map_bytes(m, ins, int(addresses[i]))
            m.mask = whole
            tensor = TensorMap.read(raw)
            start = [int(np.broadcast_to(v, m.lanes)[lane]) for v in place]
            taps = [int(np.broadcast_to(v, m.lanes)[lane]) for v in offset]
            where, exists = tensor.windows(start, taps) if offset else tensor.tile(start)
            data = np.zeros(where.shape, np.uint8)
            data[exists] = m.memory.read(where[exists], 1)[:, 0]
            ranks = None if blocks is None else int(np.broadcast_to(blocks, m.lanes)[lane])
            _deliver(m, lane, int(targets[i]), int(barriers[i]), data, tensor.width, ranks)

    return copy


def _map_bytes(m: Machine, ins: Instruction, address: int) -> bytes:
    if address % 64 != 0:
        raise Fault(MISALIGNED, f"a tensor map at {address:#x}")
    words = address + np.arange(0, MAP_BYTES, 8)
    return b"".join(read(m, ins.index, "generic", words[i : i + 1], 8).tobytes() for i in
                    range(len(words)))  # fmt: skip


def _deliver(
    m: Machine, lane: int, target: int, barrier: int, data: np.ndarray, width: int,
    ranks: int | None,
) -> None:  # fmt: skip
    """Begin a copy into the lane's own block, or those of its cluster whose bit is set."""
    block, warp = int(m.block[lane]), int(m.warp[lane])
    first = block // m.launch.cluster * m.launch.cluster
    owners = (
        [block]
        if ranks is None
        else [first + rank for rank in range(m.launch.cluster) if ranks >> rank & 1]
    )
    if target % _BOX_ALIGNMENT != 0:
        raise Fault(MISALIGNED, f"a box at shared {target:#x}")
    address = swizzle(target + np.arange(data.size), width)
    clocks = m.shared.clocks
    for owner in owners:
        if not m.mbarriers.find(owner, barrier, (block, warp)).is_fenced:
            raise Fault(RACE, "a bulk copy for an mbarrier, no fence after its initialisation")
        at = m.shared.place(address, 1, np.full(data.size, owner))
        agent = np.full(data.size, block), np.full(data.size, warp)
        clocks.check_write(at, *agent, is_async=True)
        clocks.stamp_pending_write(at)
        m.deliveries.append(lambda owner=owner, at=at: _arrive(m, owner, barrier, at, data))


def _arrive(m: Machine, owner: int, barrier: int, at: np.ndarray, data: np.ndarray) -> None:
    """End a copy: its bytes are there, and the barrier of the block that holds them knows."""
    clocks = m.shared.clocks
    clocks.tick(owner, clocks.engine)
    column = int(clocks.column(owner, clocks.engine))
    now = int(clocks.known[owner, clocks.engine, column])
    m.shared.put(at, data.reshape(-1, 1))
    clocks.stamp_async_write(at, column, now)
    m.mbarriers.complete(owner, barrier, data.size, column, now)
