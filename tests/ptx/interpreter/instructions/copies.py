"""cp.async: copies to shared memory that a thread waits for in groups."""

from __future__ import annotations

import numpy as np

from ..decode import Instruction
from ..faults import INVALID, UNSUPPORTED, Fault
from ..machine import Act, Machine
from ..pending import Copy
from .bulk import bind_bulk_copy
from .table import instruction, only


def _end(m: Machine, pending: int | None) -> None:
    """End the active lanes' copies, but of their last `pending` groups.

    None: also those of no group yet.
    """
    state, left = m.thread_copies, []
    for copy in state.copies:
        last = state.committed[copy.lanes] - (pending or 0)
        ended = m.mask[copy.lanes] & ((copy.group < last) | (pending is None))
        if ended.any():
            lanes = copy.lanes[ended]
            m.shared.clocks.stamp_write(copy.at[ended], m.block[lanes], m.warp[lanes])
        if not ended.all():
            rest = ~ended
            left.append(Copy(copy.lanes[rest], copy.at[rest], copy.group[rest]))
    state.copies = left


@instruction("cp")
def _copy(ins: Instruction, m: Machine) -> Act:
    if "bulk" in ins.modifiers:
        return bind_bulk_copy(ins, m)
    if ins.modifiers[0] != "async":
        raise Fault(UNSUPPORTED, f"{ins.text} is not emulated")
    if "commit_group" in ins.modifiers:

        def commit() -> None:
            m.thread_copies.committed[m.mask] += 1

        return commit
    if "wait_all" in ins.modifiers:
        return lambda: _end(m, None)
    if "wait_group" in ins.modifiers:
        pending = int(m.value(ins.operands[0], np.uint32))
        return lambda: _end(m, pending)
    return _start(ins, m)


def _start(ins: Instruction, m: Machine) -> Act:
    hints = [x for x in ins.modifiers if x.startswith(("L1::", "L2::"))]
    only(ins, "async", "ca", "cg", "shared", "shared::cta", "global", *hints)
    size = int(m.value(ins.operands[2], np.uint32))
    if size not in (4, 8, 16) or ("cg" in ins.modifiers and size != 16):
        raise Fault(INVALID, f"cp.async of {size} bytes")
    to, source = m.address(ins.operands[0]), m.address(ins.operands[1])
    wanted = np.array(size, np.uint32)
    if len(ins.operands) > 3:
        wanted = m.value(ins.operands[3], np.uint32)

    def start() -> None:
        lanes = np.flatnonzero(m.mask)
        block, warp = m.block[lanes], m.warp[lanes]
        address, target = source(), to()
        data = np.zeros((len(lanes), size), np.uint8)
        count = np.broadcast_to(wanted, m.lanes)[lanes]
        if not np.isin(count, (0, size)).all():
            raise Fault(UNSUPPORTED, "cp.async of a part of its bytes is not emulated")
        reads = count > 0
        if reads.any():
            data[reads] = m.memory.read(address[reads], size)
            m.counters.count_global(ins.index, address[reads], size, m.warp_index[lanes][reads])
        at = m.shared.place(target, size, block)
        m.counters.count_shared(ins.index, target, size, m.warp_index[lanes])
        m.shared.clocks.check_write(at, block, warp)
        m.shared.clocks.stamp_pending_write(at)
        m.shared.put(at, data)
        state = m.thread_copies
        state.copies.append(Copy(lanes, at, state.committed[lanes]))

    return start
