"""mbarrier and mapa: phases of a block or its cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..decode import Instruction
from ..faults import INVALID, UNSUPPORTED, Fault
from ..lanes import AT_MBARRIER
from ..machine import Act, Machine
from ..operands import Name
from ..shared_memory import RANK_SHIFT
from .table import instruction, only


@instruction("mapa")
def _map_address(ins: Instruction, m: Machine) -> Act:
    only(ins, "shared::cluster")
    out = m.target(ins.operands[0], np.uint32)
    address, rank = (m.value(operand, np.uint32) for operand in ins.operands[1:])

    def mapped() -> None:
        if (np.broadcast_to(rank, m.lanes)[m.mask] >= m.launch.cluster).any():
            raise Fault(INVALID, f"mapa: a rank beyond a cluster of {m.launch.cluster}")
        np.copyto(out, address + ((rank + np.uint32(1)) << np.uint32(RANK_SHIFT)), where=m.mask)

    return mapped


@instruction("mbarrier")
def _mbarrier(ins: Instruction, m: Machine) -> Act:
    kinds = {"init": _init, "arrive": _arrive, "try_wait": _try_wait}
    kind = ins.modifiers[0]
    if kind not in kinds:
        raise Fault(UNSUPPORTED, f"mbarrier.{kind} is not emulated")
    only(ins, kind, "expect_tx", "parity", "shared", "shared::cta", "shared::cluster")
    return kinds[kind](ins, m)


def _places(m: Machine, address: Callable[[], np.ndarray]) -> list[tuple[int, int, int]]:
    """Return (lane, block, offset) of the mbarriers that the active lanes address, checked."""
    lanes, where = np.flatnonzero(m.mask), address()
    m.shared.place(where, 8, m.block[lanes])
    owner, offset = m.shared.owner(where, m.block[lanes])
    return list(zip(lanes.tolist(), owner.tolist(), offset.tolist(), strict=True))


def _user(m: Machine, lane: int) -> tuple[int, int]:
    return int(m.block[lane]), int(m.warp[lane])


def _init(ins: Instruction, m: Machine) -> Act:
    address, count = m.address(ins.operands[0]), m.value(ins.operands[1], np.uint32)

    def init() -> None:
        for lane, block, offset in _places(m, address):
            wanted = int(np.broadcast_to(count, m.lanes)[lane])
            m.mbarriers.init(block, int(m.warp[lane]), offset, wanted)

    return init


def _arrive(ins: Instruction, m: Machine) -> Act:
    if ins.operands[0] != Name("_"):
        raise Fault(UNSUPPORTED, "mbarrier.arrive with a state is not emulated")
    address = m.address(ins.operands[1])
    expected = m.value(ins.operands[2], np.uint32) if len(ins.operands) > 2 else None
    if expected is not None and "expect_tx" not in ins.modifiers:
        raise Fault(UNSUPPORTED, "mbarrier.arrive with a count is not emulated")

    def arrive() -> None:
        for lane, block, offset in _places(m, address):
            size = 0 if expected is None else int(np.broadcast_to(expected, m.lanes)[lane])
            m.mbarriers.arrive(block, offset, _user(m, lane), size)

    return arrive


def _try_wait(ins: Instruction, m: Machine) -> Act:
    """Lanes for which the phase goes on wait here until some phase ends; then try again."""
    if "parity" not in ins.modifiers:
        raise Fault(UNSUPPORTED, "mbarrier.try_wait without parity is not emulated")
    out = m.target(ins.operands[0], np.bool_)
    address, parity = m.address(ins.operands[1]), m.value(ins.operands[2], np.uint32)

    def try_wait() -> None:
        lanes, where = np.flatnonzero(m.mask), address()
        m.shared.place(where, 8, m.block[lanes])
        owner, offset = m.shared.owner(where, m.block[lanes])
        wanted = np.broadcast_to(parity, m.lanes)[lanes].astype(np.int64)
        # The lanes of a warp ask the same, mostly: each question once.
        asked = np.stack([m.warp_index[lanes], owner, offset, wanted])
        questions, of_lane = np.unique(asked, axis=1, return_inverse=True)
        passed = np.array([
            m.mbarriers.try_wait(b, at, (index // m.warps, index % m.warps), p)
            for index, b, at, p in questions.T.tolist()
        ])[of_lane.reshape(-1)]  # fmt: skip
        out[lanes[passed]] = True
        m.pc[lanes[~passed]] = ins.index
        m.status[lanes[~passed]] = AT_MBARRIER

    return try_wait
