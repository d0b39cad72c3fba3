"""Runs a kernel's blocks: which lanes go on, and when copies arrive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .counters import Counters
from .decode import Kernel
from .faults import DEADLOCK, INVALID, RACE, Fault
from .global_memory import GlobalMemory
from .instructions import STOPS, bind
from .lanes import DONE, RUNS, WARP
from .machine import Act, Launch, Machine, Size3

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
) -> Counters:
    """Run a launch and return what it was counted by; raises Fault at the first mistake.

    most_blocks: that run at once, as lanes side by side; whole clusters.
    """
    counters = counters or Counters(kernel)
    if len(launch.parameters) != kernel.parameter_bytes:
        wanted, got = kernel.parameter_bytes, len(launch.parameters)
        raise Fault(INVALID, f"expected {wanted} bytes of parameters, got {got}")
    for blocks in _batches(launch, most_blocks):
        with np.errstate(all="ignore"):
            _Run(Machine(kernel, launch, blocks, memory, counters), order).run()
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
                if m.deliveries:
                    raise Fault(RACE, f"{m.kernel.name} ended with bulk copies under way")
                return
            elif m.deliveries:
                m.deliveries.pop(-1 if self.is_ahead else 0)()
            else:
                self._report_deadlock()

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
        m, code, acts = self.m, self.m.kernel.code, self.acts
        issued = m.counters.issued
        warps = np.count_nonzero(active.reshape(-1, WARP).any(1))
        place = start
        while True:
            ins = code[place]
            act = acts[place]
            m.mask = active
            try:
                if act is None:
                    act = acts[place] = bind(ins, m)
                runs = True
                if ins.guard is not None:
                    guard = m.register(ins.guard)
                    m.mask = active & (~guard if ins.guard_negated else guard)
                    runs = bool(m.mask.any())
                    if not runs and ins.opcode != "bra":
                        issued[place] -= warps
                if self.is_stop[place]:
                    m.pc[active] = place + 1
                if runs:
                    act()
            except Fault as fault:
                raise fault.at(str(ins)) from None
            place += 1
            if self.is_stop[place - 1]:
                break
            if self.is_target[place]:
                m.pc[active] = place
                break
        issued[start:place] += warps

    def _report_deadlock(self) -> None:
        m = self.m
        waits = m.status != DONE
        places = np.unique(m.pc[waits])
        lanes = [np.count_nonzero(waits & (m.pc == p)) for p in places]
        # One that waits at an mbarrier stands at its instruction, any other behind it.
        texts = [
            f"{n} lanes around {m.kernel.code[max(int(p) - 1, 0)]} | {m.kernel.code[int(p)]}"
            for n, p in zip(lanes, places, strict=True)
        ]
        raise Fault(DEADLOCK, "nothing can run:\n  " + "\n  ".join(texts))
