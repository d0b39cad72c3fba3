"""Exchanges between the lanes of a warp, and votes."""

from __future__ import annotations

import numpy as np

from ..decode import Instruction
from ..faults import UNSUPPORTED, Fault
from ..lanes import WARP
from ..machine import Act, Machine
from ..operands import Pair
from .table import instruction, numpy_type, only

_ALL = 0xFFFFFFFF


def _whole_warps(ins: Instruction, m: Machine, members: np.ndarray) -> np.ndarray:
    warps = m.active_warps(ins)
    if (np.broadcast_to(members, m.lanes).reshape(-1, WARP)[warps] != _ALL).any():
        raise Fault(UNSUPPORTED, f"{ins.opcode} among a part of a warp is not emulated")
    return warps


def _sources(mode: str, by: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lane each lane reads, and whether it lies in its segment. [warps, 32] each."""
    lane = np.arange(WARP)
    by, clamp, segment = by & 31, limits & 31, limits >> 8 & 31
    last = (lane & segment) | (clamp & ~segment)
    source = {
        "up": lane - by,
        "down": lane + by,
        "bfly": lane ^ by,
        "idx": (lane & segment) | (by & ~segment),
    }[mode]
    inside = source >= last if mode == "up" else source <= last
    return np.where(inside, source, lane), inside


@instruction("shfl")
def _shuffle(ins: Instruction, m: Machine) -> Act:
    (mode,) = only(ins, "sync", "up", "down", "bfly", "idx") - {"sync"}
    result = ins.operands[0]
    out = m.target(result.first if isinstance(result, Pair) else result, np.uint32)
    flag = m.target(result.second, np.bool_) if isinstance(result, Pair) else None
    value, by, limits, members = (m.value(operand, np.uint32) for operand in ins.operands[1:])

    def shuffle() -> None:
        warps = _whole_warps(ins, m, members)
        rows = [np.broadcast_to(v, m.lanes).reshape(-1, WARP)[warps] for v in (value, by, limits)]
        source, inside = _sources(mode, rows[1].astype(np.int64), rows[2].astype(np.int64))
        out.reshape(-1, WARP)[warps] = np.take_along_axis(rows[0], source, 1)
        if flag is not None:
            flag.reshape(-1, WARP)[warps] = inside

    return shuffle


@instruction("vote")
def _vote(ins: Instruction, m: Machine) -> Act:
    (mode,) = only(ins, "sync", "all", "any", "uni", "ballot") - {"sync"}
    out = m.target(ins.operands[0], np.uint32 if mode == "ballot" else np.bool_)
    choose, members = m.predicate(ins.operands[1]), m.value(ins.operands[2], np.uint32)

    def vote() -> None:
        warps = _whole_warps(ins, m, members)
        votes = np.broadcast_to(choose(), m.lanes).reshape(-1, WARP)[warps]
        if mode == "ballot":
            found = (votes.astype(np.uint64) << np.arange(WARP, dtype=np.uint64)).sum(1)
        else:
            every, some = votes.all(1), votes.any(1)
            found = {"all": every, "any": some, "uni": every | ~some}[mode]
        out.reshape(-1, WARP)[warps] = found[:, None].astype(out.dtype)

    return vote


@instruction("redux")
def _reduce(ins: Instruction, m: Machine) -> Act:
    (mode,) = only(ins, "sync", "add", "min", "max", "and", "or", "xor") - {"sync"}
    names = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "add": "add"}
    combine = getattr(np, names.get(mode, mode + "imum"))
    dtype = numpy_type(ins.types[-1])
    out, value = m.target(ins.operands[0], dtype), m.value(ins.operands[1], dtype)
    members = m.value(ins.operands[2], np.uint32)

    def reduce() -> None:
        warps = _whole_warps(ins, m, members)
        rows = value.reshape(-1, WARP)[warps]
        out.reshape(-1, WARP)[warps] = combine.reduce(rows, 1, dtype=dtype)[:, None]

    return reduce


@instruction("activemask")
def _active(ins: Instruction, m: Machine) -> Act:
    out = m.target(ins.operands[0], np.uint32)

    def active() -> None:
        lanes = m.mask.reshape(-1, WARP).astype(np.uint64) << np.arange(WARP, dtype=np.uint64)
        np.copyto(out, np.repeat(lanes.sum(1).astype(np.uint32), WARP), where=m.mask)

    return active
