"""Barriers of a block, a warp, a cluster: who waits, and what each then knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .faults import BARRIER, Fault
from .lanes import AT_BARRIER, AT_CLUSTER, AT_WARP, DONE, RUNS, WARP

if TYPE_CHECKING:
    from .machine import Machine


class Barriers:
    """The barriers of a machine's blocks."""

    def __init__(self, machine: Machine):
        self._m = machine
        self._name = np.full(machine.lanes, -1, np.int64)  # of the barrier a lane waits at
        self._wanted = np.zeros(machine.lanes, np.int64)  # threads it waits for; 0: all
        self._members = np.zeros(machine.lanes, np.uint32)  # lanes of its warp it waits for
        self._arrivals = np.zeros(machine.lanes, np.int64)  # of a lane at its cluster's barrier
        clusters = -(-len(machine.blocks) // machine.launch.cluster)
        clocks = machine.shared.clocks
        self._cluster_known = np.zeros((2, clusters, clocks.known.shape[2]), clocks.known.dtype)

    def wait(self, name: np.ndarray, wanted: np.ndarray) -> None:
        """Let the active lanes wait at a barrier of their block for so many threads (0: all)."""
        m = self._m
        self._name[m.mask], self._wanted[m.mask] = name, wanted
        m.status[m.mask] = AT_BARRIER
        self._settle(np.unique(m.block[m.mask]))

    def _settle(self, blocks: Iterable[int]) -> None:
        m = self._m
        for block in blocks:
            mine = m.block == block
            waits = mine & (m.status == AT_BARRIER)
            for name in np.unique(self._name[waits]):
                here = waits & (self._name == name)
                wanted = np.unique(self._wanted[here])
                if len(wanted) != 1:
                    raise Fault(BARRIER, f"barrier {name}: threads wait for {list(wanted)} threads")
                count = int(wanted[0]) or np.count_nonzero(mine & (m.status != DONE))
                came = np.count_nonzero(here)
                if came > count:
                    raise Fault(BARRIER, f"barrier {name}: {came} threads come, {count} wanted")
                if came == count:
                    m.status[here] = RUNS
                    warps = np.unique(m.warp[here])
                    m.shared.clocks.meet(np.full(len(warps), block), warps)

    def wait_warp(self, members: np.ndarray) -> None:
        """Let the active lanes wait for those of their warp that a mask names."""
        m = self._m
        self._members[m.mask] = members
        m.status[m.mask] = AT_WARP
        self._settle_warps(np.unique(m.warp_index[m.mask]))

    def _settle_warps(self, warps: Iterable[int]) -> None:
        m = self._m
        for warp in warps:
            lanes = slice(warp * WARP, warp * WARP + WARP)
            status = m.status[lanes]
            waits = status == AT_WARP
            bits = np.bitwise_or.reduce(self._members[lanes][waits], initial=np.uint32(0))
            named = bits >> np.arange(WARP, dtype=np.uint32) & 1 == 1
            if waits.any() and (waits | (status == DONE) | ~named).all():
                m.status[lanes] = np.where(waits, RUNS, status)

    def arrive_cluster(self) -> None:
        """Note that the active lanes have come to their cluster's barrier."""
        m = self._m
        self._arrivals[m.mask] += 1
        clocks = m.shared.clocks
        for index in np.unique(m.warp_index[m.mask]):
            block, warp = index // m.warps, index % m.warps
            seen = self._cluster_known[:, block // m.launch.cluster]
            seen[0] = np.maximum(seen[0], clocks.known[block, warp])
            seen[1] = np.maximum(seen[1], clocks.fenced[block, warp])
            clocks.tick(block, warp)
        self._settle_clusters()

    def wait_cluster(self) -> None:
        """Let the active lanes wait until all of their cluster have come as often as they."""
        self._m.status[self._m.mask] = AT_CLUSTER
        self._settle_clusters()

    def _settle_clusters(self) -> None:
        m = self._m
        cluster = m.block // m.launch.cluster
        for one in np.unique(cluster[m.status == AT_CLUSTER]):
            mine = cluster == one
            least = self._arrivals[mine & (m.status != DONE)].min()
            free = mine & (m.status == AT_CLUSTER) & (self._arrivals <= least)
            m.status[free] = RUNS
            clocks = m.shared.clocks
            for index in np.unique(m.warp_index[free]):
                place = index // m.warps, index % m.warps
                for clock, seen in zip(
                    (clocks.known, clocks.fenced), self._cluster_known[:, one], strict=True
                ):
                    clock[place] = np.maximum(clock[place], seen)

    def leave(self) -> None:
        """Let the active lanes end: barriers no longer wait for them."""
        m = self._m
        m.status[m.mask] = DONE
        self._settle(np.unique(m.block[m.mask]))
        self._settle_warps(np.unique(m.warp_index[m.mask]))
        self._settle_clusters()
