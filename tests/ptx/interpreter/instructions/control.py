"""Branches, ends and barriers. These act on lanes' program counters and end a straight run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..decode import Instruction
from ..faults import INVALID, TRAP, UNSUPPORTED, Fault
from ..lanes import AT_MBARRIER
from ..machine import Act, Machine
from ..operands import Name
from .table import instruction, only

#: Opcodes that end a straight run: behind one of them lanes may be anywhere, or wait.
STOPS = {"bra", "ret", "exit", "trap", "bar", "barrier", "mbarrier", "wgmma"}


@instruction("bra")
def _branch(ins: Instruction, m: Machine) -> Act:
    only(ins, "uni")
    label = ins.operands[0]
    assert isinstance(label, Name)
    to = m.kernel.labels[label.text]

    def branch() -> None:
        m.pc[m.mask] = to

    return branch


@instruction("ret", "exit")
def _leave(ins: Instruction, m: Machine) -> Act:
    return m.barriers.leave


@instruction("trap")
def _trap(ins: Instruction, m: Machine) -> Act:
    def trap() -> None:
        raise Fault(TRAP, f"{np.count_nonzero(m.mask)} lanes")

    return trap


@instruction("bar", "barrier")
def _barrier(ins: Instruction, m: Machine) -> Act:
    found = only(ins, "sync", "aligned", "warp", "cta", "cluster", "arrive", "wait", "release",
                 "acquire")  # fmt: skip
    if "warp" in found:
        members = m.value(ins.operands[0], np.uint32)
        return lambda: m.barriers.wait_warp(_active(members, m))
    if "cluster" in found:
        meet = m.barriers.arrive_cluster if "arrive" in found else m.barriers.wait_cluster
        return _of_whole_warps(ins, m, meet)
    if "sync" not in found:
        raise Fault(UNSUPPORTED, f"{ins.text} is not emulated")
    name, *rest = (m.value(operand, np.uint32) for operand in ins.operands)
    wanted = rest[0] if rest else np.zeros((), np.uint32)
    return _of_whole_warps(ins, m, lambda: m.barriers.wait(_active(name, m), _active(wanted, m)))


def _active(value: np.ndarray, m: Machine) -> np.ndarray:
    return value[m.mask] if value.ndim else value


def _of_whole_warps(ins: Instruction, m: Machine, act: Act) -> Act:
    def checked() -> None:
        m.active_warps(ins)
        act()

    return checked


@instruction("setmaxnreg")
def _registers(ins: Instruction, m: Machine) -> Act:
    only(ins, "inc", "dec", "sync", "aligned")
    count = int(m.value(ins.operands[0], np.uint32))
    if count % 8 != 0 or not 24 <= count <= 256:
        raise Fault(INVALID, f"setmaxnreg {count}: expected a multiple of 8 in 24..256")
    return lambda: None


@instruction("fence", "membar")
def _fence(ins: Instruction, m: Machine) -> Act:
    if "mbarrier_init" in ins.modifiers:
        return _each_block(m, m.mbarriers.fence)
    if "proxy" not in ins.modifiers:
        return lambda: None

    def fence() -> None:
        for block in np.unique(m.block[m.mask]):
            m.mbarriers.fence(int(block))
        warps = np.unique(m.warp_index[m.mask])
        m.shared.clocks.fence(warps // m.warps, warps % m.warps)

    return fence


def _each_block(m: Machine, act: Callable[[int], None]) -> Act:
    def each() -> None:
        for block in np.unique(m.block[m.mask]):
            act(int(block))

    return each


@instruction("mapa")
def _map_address(ins: Instruction, m: Machine) -> Act:
    only(ins, "shared::cluster")
    out = m.target(ins.operands[0], np.uint32)
    address, rank = (m.value(operand, np.uint32) for operand in ins.operands[1:])

    def mapped() -> None:
        if (np.broadcast_to(rank, m.lanes)[m.mask] >= m.launch.cluster).any():
            raise Fault(INVALID, f"mapa: a rank beyond a cluster of {m.launch.cluster}")
        np.copyto(out, address + ((rank + np.uint32(1)) << np.uint32(24)), where=m.mask)

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
