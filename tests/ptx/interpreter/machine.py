"""The state of blocks that run together: lanes, registers, memories; how operands read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .barriers import Barriers
from .counters import Counters
from .decode import Instruction, Kernel
from .faults import DIVERGENT, UNSUPPORTED, Fault
from .global_memory import GlobalMemory
from .lanes import DONE, RUNS, WARP, WARPGROUP
from .mbarriers import Mbarriers
from .operands import TYPES, UNSIGNED, Address, Name, Operand, Vector, literal
from .pending import GroupProducts, ThreadCopies
from .shared_memory import SharedMemory

#: Where the other spaces lie among generic addresses.
SHARED_BASE, LOCAL_BASE, PARAM_BASE = 0x0100_0000_0000, 0x0200_0000_0000, 0x0300_0000_0000

_UNWRITTEN = 0xA5C3_96F1_A5C3_96F1

Size3 = tuple[int, int, int]
Act = Callable[[], None]


@dataclass(frozen=True)
class Launch:
    """A kernel's launch; `parameters` are the bytes of all of them, laid out as in PTX."""

    grid: Size3
    block: Size3
    parameters: bytes
    dynamic_shared: int = 0
    cluster: int = 1


@dataclass
class Machine:
    """Blocks `blocks` of a launch. A lane is a thread; all arrays are over lanes.

    Lanes of a block follow each other, blocks of a cluster too; threads fill up whole warps.
    """

    kernel: Kernel
    launch: Launch
    blocks: list[Size3]
    memory: GlobalMemory
    counters: Counters
    equal_writes: bool = False
    mask: np.ndarray = field(init=False)  # lanes that the present instruction is for
    #: Bulk copies under way: calling one ends it.
    deliveries: list[tuple[Instruction, Act]] = field(default_factory=list)

    def __post_init__(self) -> None:
        x, y, z = self.launch.block
        self.threads = x * y * z
        if self.threads % WARP != 0:
            raise Fault(UNSUPPORTED, f"a block of {self.threads} threads: no whole warps")
        self.warps = self.threads // WARP
        self.lanes = len(self.blocks) * self.threads
        self.block = np.repeat(np.arange(len(self.blocks)), self.threads)
        self.warp = np.tile(np.repeat(np.arange(self.warps), WARP), len(self.blocks))
        self.warp_index = self.block * self.warps + self.warp  # among all
        self.mask = np.zeros(self.lanes, bool)
        self.pc = np.zeros(self.lanes, np.int64)
        self.status = np.full(self.lanes, RUNS, np.int8)
        self.parameters = np.frombuffer(self.launch.parameters, np.uint8)
        shared = self.kernel.shared_bytes + self.launch.dynamic_shared
        self.shared = SharedMemory(
            len(self.blocks), shared, self.warps, self.launch.cluster, self.equal_writes
        )
        self.local = np.zeros((self.lanes, self.kernel.local_bytes), np.uint8)
        self.local_written = np.zeros(self.local.shape, bool)
        # These look at the machine, so they are made last.
        self.barriers = Barriers(self)
        self.mbarriers = Mbarriers(self)
        self.thread_copies = ThreadCopies(np.zeros(self.lanes, np.int64))
        self.products = [GroupProducts() for _ in range(-(-self.lanes // WARPGROUP))]
        self._registers: dict[str, np.ndarray] = {}
        self._special = self._special_registers()

    def _special_registers(self) -> dict[str, np.ndarray]:
        thread = np.tile(np.arange(self.threads), len(self.blocks))
        x, y, _ = self.launch.block
        place = np.array(self.blocks)[self.block]
        values = {"%laneid": thread % WARP, "%warpid": self.warp}
        values |= {"%tid.x": thread % x, "%tid.y": thread // x % y, "%tid.z": thread // (x * y)}
        rank = self.block % self.launch.cluster
        values |= {"%cluster_ctarank": rank, "%cluster_ctaid.x": rank}
        for i, axis in enumerate("xyz"):
            values[f"%ctaid.{axis}"] = place[:, i]
            values[f"%ntid.{axis}"] = np.full(self.lanes, self.launch.block[i])
            values[f"%nctaid.{axis}"] = np.full(self.lanes, self.launch.grid[i])
        values["%cluster_nctarank"] = np.full(self.lanes, self.launch.cluster)
        lane = (thread % WARP).astype(np.uint64)
        one = np.uint64(1)
        values["%lanemask_eq"] = one << lane
        values["%lanemask_lt"] = (one << lane) - one
        values["%lanemask_le"] = (one << lane << one) - one
        return {name: value.astype(np.uint32) for name, value in values.items()}

    def register(self, name: str) -> np.ndarray | None:
        """Return a register's array, which stays the same while the machine runs, or None."""
        if name not in self._registers:
            kind = self.kernel.register_type(name)
            if kind is None:
                return None
            plain = np.bool_ if kind == "pred" else UNSIGNED[np.dtype(TYPES[kind]).itemsize]
            # Not zero, so that a result that depends on what nobody wrote is wrong.
            content = _UNWRITTEN & ((1 << 8 * np.dtype(plain).itemsize) - 1)
            self._registers[name] = np.full(self.lanes, content, plain)
        return self._registers[name]

    def value(self, operand: Operand, dtype: type[np.generic]) -> np.ndarray:
        """Return an operand read as a type: a view over lanes, or a 0-d constant.

        A wider register gives its low bits, as PTX allows to st and cvt.
        """
        if not isinstance(operand, Name):
            raise Fault(UNSUPPORTED, f"operand {operand}")
        text = operand.text
        array = self._special.get(text)
        if array is None:
            array = self.register(text)
        if array is None:
            return self._constant(text, dtype)
        if operand.negated:
            raise Fault(UNSUPPORTED, f"operand !{text}")
        return _view(array, dtype, text)

    def predicate(self, operand: Operand) -> Callable[[], np.ndarray]:
        """Return a function that reads a predicate, negated or not."""
        assert isinstance(operand, Name)
        array = self.value(Name(operand.text), np.bool_)
        return (lambda: ~array) if operand.negated else (lambda: array)

    def target(self, operand: Operand, dtype: type[np.generic]) -> np.ndarray:
        """Return a register of exactly the type's width as a view to write to."""
        assert isinstance(operand, Name), operand
        if operand.text == "_":
            return np.zeros(self.lanes, dtype)
        array = self.register(operand.text)
        if array is None or array.dtype.itemsize != np.dtype(dtype).itemsize:
            raise Fault(UNSUPPORTED, f"result {operand.text} as {np.dtype(dtype)}")
        return array.view(dtype)

    def wide_target(self, operand: Operand, dtype: type[np.generic]) -> np.ndarray:
        """Return a register that may be wider than the type, as a view of the type's kind."""
        assert isinstance(operand, Name), operand
        array = self.register(operand.text)
        if array is None:
            return self.target(operand, dtype)
        kind, size = np.dtype(dtype).kind, array.dtype.itemsize
        if size == np.dtype(dtype).itemsize or kind == "f":
            return self.target(operand, dtype)
        return array.view(np.dtype(f"i{size}") if kind == "i" else array.dtype)

    def _constant(self, text: str, dtype: type[np.generic]) -> np.ndarray:
        for offsets in (self.kernel.shared, self.kernel.local):
            if text in offsets:
                return np.asarray(offsets[text]).astype(dtype)
        for parameter in self.kernel.parameters:
            if parameter.name == text:
                return np.asarray(parameter.offset).astype(dtype)
        value = literal(text, dtype)
        if value is None:
            raise Fault(UNSUPPORTED, f"operand {text}")
        return value

    def address(self, operand: Operand) -> Callable[[], np.ndarray]:
        """Return a function that gives the active lanes' addresses as int64."""
        assert isinstance(operand, Address), operand
        array = self._special.get(operand.base.text)
        if array is None:
            array = self.register(operand.base.text)
        offset = operand.offset
        if array is None:
            fixed = int(self._constant(operand.base.text, np.int64)) + offset
            return lambda: np.full(np.count_nonzero(self.mask), fixed, np.int64)
        if array.dtype.itemsize == 4:
            # 32-bit addresses wrap.
            return lambda: (array[self.mask].astype(np.int64) + offset) & 0xFFFFFFFF
        return lambda: array[self.mask].astype(np.int64) + offset

    def vector(self, operand: Operand) -> tuple[Name, ...]:
        """Return an operand's names: of a vector, or of itself."""
        if isinstance(operand, Vector):
            return operand.items
        assert isinstance(operand, Name), operand
        return (operand,)

    def has_ended(self, block: int) -> bool:
        """Return whether all threads of a block have ended."""
        return bool((self.status[self.block == block] == DONE).all())

    def active_warps(self, instruction: Instruction, but_ended: bool = False) -> np.ndarray:
        """Return the indices of the warps that run an instruction which takes whole warps.

        but_ended: lanes that have ended may be missing.
        """
        warps = self.mask.reshape(-1, WARP)
        here = self.mask | (self.status == DONE) if but_ended else self.mask
        whole = here.reshape(-1, WARP).all(1) & warps.any(1)
        if (whole != warps.any(1)).any():
            raise Fault(DIVERGENT, f"{instruction.opcode}: only a part of a warp runs it")
        return np.flatnonzero(whole)


def _view(array: np.ndarray, dtype: type[np.generic], text: str) -> np.ndarray:
    if array.dtype == np.bool_:
        if dtype is not np.bool_:
            raise Fault(UNSUPPORTED, f"predicate {text} as {np.dtype(dtype)}")
        return array
    size = np.dtype(dtype).itemsize
    if array.dtype.itemsize < size or dtype is np.bool_:
        raise Fault(UNSUPPORTED, f"register {text} as {np.dtype(dtype)}")
    return array.view(dtype)[:: array.dtype.itemsize // size]
