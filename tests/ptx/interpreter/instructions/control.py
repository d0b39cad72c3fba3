"""Branches, ends and barriers. These act on lanes' program counters and end a straight run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..decode import Instruction
from ..faults import INVALID, TRAP, UNSUPPORTED, Fault
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
        m.active_warps(ins, but_ended=True)
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
