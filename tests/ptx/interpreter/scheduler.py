"""Runs a kernel's blocks: which lanes go on, and when copies arrive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .counters import Counters
from .decode import Instruction, Kernel
from .faults import DEADLOCK, INVALID, RACE, Fault
from .global_memory import GlobalMemory
from .instructions import STOPS, bind
from .lanes import AT_MBARRIER, AT_WARPGROUP, DONE, RUNS, WARP
from .machine import Act, Launch, Machine, Size3
from .operands import Name

#: Warps that are furthest behind go first, or those that are furthest ahead; bulk copies arrive
#: when nothing else can run, in their order or against it. Lanes of one warp always wait for those
#: behind them, so that they meet again.
BEHIND, AHEAD = "behind", "ahead"
_NOWHERE = np.iinfo(np.int64).max


def run(
    kernel: Kernel,
    launch: Launch,
    memory: GlobalMemory,
    *,
    counters: Counters | None = None,
    order: str = BEHIND,
    most_blocks: int = 8,
    equal_writes: bool = False,
) -> Counters:
    """Run a launch and return what it was counted by; raises Fault at the first mistake.

    most_blocks: that run at once, as lanes side by side; whole clusters. equal_writes: several
    warps may write the same value to a place of shared memory, as Triton has them do.
    """
    counters = counters or Counters(kernel)
    if len(launch.parameters) != kernel.parameter_bytes:
        wanted, got = kernel.parameter_bytes, len(launch.parameters)
        raise Fault(INVALID, f"expected {wanted} bytes of parameters, got {got}")
    for blocks in _batches(launch, most_blocks):
        with np.errstate(all="ignore"):
            _Run(Machine(kernel, launch, blocks, memory, counters, equal_writes), order).run()
    return counters


def _batches(launch: Launch, most: int) -> Iterator[list[Size3]]:
    x, y, z = launch.grid
    if x % launch.cluster != 0:
        raise Fault(INVALID, f"a grid of {x} blocks and clusters of {launch.cluster}")
    blocks = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
    count = max(most // launch.cluster, 1) * launch.cluster
    for start in range(0, len(blocks), count):
        yield blocks[start : start + count]


class _Run:
    def __init__(self, machine: Machine, order: str):
        self.m = machine
        self.is_ahead = order == AHEAD
        code = machine.kernel.code
        self.acts: list[Act | None] = [None] * len(code)
        self.is_stop = [ins.opcode in STOPS for ins in code]
        self.is_target = [False] * (len(code) + 1)
        for place in machine.kernel.labels.values():
            self.is_target[place] = True

    def run(self) -> None:
        m = self.m
        while True:
            place, active = self._pick()
            if place != _NOWHERE:
                self._go(place, active)
            elif (m.status == DONE).all():
                break
            elif m.deliveries:
                copy, end = m.deliveries.pop(-1 if self.is_ahead else 0)
                with _PlacedAt(copy):
                    end()
            else:
                self._report_deadlock()
        if m.deliveries:
            with _PlacedAt(m.deliveries[0][0]):
                raise Fault(RACE, f"{m.kernel.name} ended while a bulk copy was under way")

    def _pick(self) -> tuple[int, np.ndarray]:
        """Return where lanes go on, and which."""
        m = self.m
        places = np.where(m.status == RUNS, m.pc, _NOWHERE).reshape(-1, WARP)
        of_warps = places.min(1)
        place = of_warps.min()
        if self.is_ahead and place != _NOWHERE:
            place = of_warps[of_warps != _NOWHERE].max()
        return int(place), ((places == place) & (of_warps == place)[:, None]).reshape(-1)

    def _go(self, start: int, active: np.ndarray) -> None:
        """Run lanes until where they may part."""
        m, issued = self.m, self.m.counters.issued
        warps = np.count_nonzero(active.reshape(-1, WARP).any(1))
        place = start
        while True:
            if not self._step(place, active):
                issued[place] -= warps
            place += 1
            if self.is_stop[place - 1]:
                break
            if self.is_target[place]:
                m.pc[active] = place
                break
        issued[start:place] += warps

    def _step(self, place: int, active: np.ndarray) -> bool:
        """Run one instruction for lanes; return False where its guard keeps all from it."""
        m, ins = self.m, self.m.kernel.code[place]
        m.mask = active
        with _PlacedAt(ins):
            act = self.acts[place]
            if act is None:
                act = self.acts[place] = bind(ins, m)
            if self.is_stop[place]:
                m.pc[active] = place + 1
            if ins.guard is not None:
                guard = m.value(Name(ins.guard), np.bool_)
                m.mask = active & (~guard if ins.guard_negated else guard)
                if not m.mask.any():
                    return ins.opcode == "bra"  # one that is not taken has run too
            act()
        return True

    def _report_deadlock(self) -> None:
        m = self.m
        waits = m.status != DONE
        # Who waits for a phase or a warpgroup tries again; any other is behind its barrier.
        place = m.pc - ~np.isin(m.status, (AT_MBARRIER, AT_WARPGROUP))
        texts = [
            f"{np.count_nonzero(waits & (place == p))} lanes wait at {m.kernel.code[int(p)]}"
            for p in np.unique(place[waits])
        ]
        raise Fault(DEADLOCK, "nothing can run\n  " + "\n  ".join(texts))


class _PlacedAt:
    """Tells faults their instruction. Written out: it is entered at each."""

    def __init__(self, ins: Instruction):
        self.ins = ins

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Fault):
            error.at(str(self.ins))
