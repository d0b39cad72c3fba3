"""Which calls of a graph are replayed as a CUDA graph, and which run its operators one by one.

What records and replays is behind `Recorder`, so that everything here is tested without a GPU.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from fastinfer.engine.module_state import ModuleState

#: Graphs kept for a model. One holds its inputs and results; what lies between is shared by all.
MAX_GRAPHS = 16
#: Shapes that are remembered as seen once, or as not to be recorded.
MAX_SEEN = 256

Function = Callable[..., Sequence[Any]]


class NotRecordedError(Exception):
    """A call that no CUDA graph can hold; the text says why.

    is_lasting: no other shape could be recorded either.
    """

    def __init__(self, reason: str, *, is_lasting: bool) -> None:
        super().__init__(reason)
        self.is_lasting = is_lasting


class Recording(Protocol):
    """A call that was recorded."""

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the results for inputs of the recorded shapes, in memory of their own."""


class Recorder(Protocol):
    """Makes recordings on the devices of one type."""

    device_type: str

    def is_recordable(self, device: torch.device) -> bool:
        """Return False while somebody captures this thread's work there, or autocast changes it."""

    def why_not(self, graph_module: fx.GraphModule) -> str:
        """Return what in a graph is known not to be recordable, "" for nothing."""

    def record(self, function: Function, inputs: Sequence[Tensor]) -> Recording:
        """Return the call function(*inputs).

        Raises:
            NotRecordedError: it waits for the device, or memory is out; all is as it was before.
        """


class CudaGraphs:
    """The recordings of one lowered graph, by the shapes, dtypes and memory order of its inputs.

    A shape is recorded at its second call: one that comes once is not worth it. The least recently
    used one of more than MAX_GRAPHS goes. A hook or another tensor in a module ends them all.
    Copies have none. say: gets a sentence for the report.
    """

    def __init__(self, say: Callable[[str], None], recorder: Recorder | None = None) -> None:
        self._say = say
        self._recorder = recorder
        self._lock = threading.Lock()
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._seen: OrderedDict[Any, bool] = OrderedDict()  # key -> may be recorded
        self._state: ModuleState | None = None
        self._refusal = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaGraphs:
        return CudaGraphs(copy.deepcopy(self._say, memo), self._recorder)

    def __len__(self) -> int:
        return len(self._recordings)

    @property
    def device_type(self) -> str:
        """Of the devices whose calls may be recorded; "" where there is no recorder."""
        return "" if self._recorder is None else self._recorder.device_type

    @property
    def refusal(self) -> str:
        """Why nothing of this graph is recorded, "" where it may be."""
        return self._refusal

    def clear(self) -> None:
        """Forget everything: the graph's tensors are others now."""
        with self._lock:
            self._forget()
            self._seen.clear()
            self._refusal = ""

    def run(
        self, graph_module: fx.GraphModule, function: Function, inputs: Sequence[Tensor]
    ) -> tuple[Any, ...] | None:
        """Return the results of function(*inputs), replayed; None where the caller must run it.

        function: what runs graph_module. inputs: at least one, all on one device.
        """
        recorder = self._recorder
        if recorder is None or self._refusal or not _is_plain(inputs):
            return None
        if not recorder.is_recordable(inputs[0].device):
            return None
        key = _key(inputs)
        with self._lock:
            if not self._is_as_it_was(graph_module):
                return None
            recording = self._recordings.get(key)
            if recording is None:
                if not self._is_wanted(key):
                    return None
                recording = self._record(key, recorder, graph_module, function, inputs)
                if recording is None:
                    return None
            self._recordings.move_to_end(key)
            return recording.replay(inputs)

    def _is_as_it_was(self, graph_module: fx.GraphModule) -> bool:
        """Return False where a module of the graph has a hook, which a replay would not call."""
        if self._state is not None and self._state.holds():
            return True
        self._forget()
        state = ModuleState(graph_module)
        if not state.holds():
            return False
        self._state = state
        return True

    def _forget(self) -> None:
        self._recordings.clear()
        self._state = None

    def _is_wanted(self, key: Any) -> bool:
        """Return True at the second call of a shape, and note the first."""
        known = self._seen.get(key)
        if known is None:
            self._seen[key] = True
            while len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)
            return False
        self._seen.move_to_end(key)
        return known

    def _record(
        self,
        key: Any,
        recorder: Recorder,
        graph_module: fx.GraphModule,
        function: Function,
        inputs: Sequence[Tensor],
    ) -> Recording | None:
        while len(self._recordings) >= MAX_GRAPHS:
            self._recordings.popitem(last=False)
        try:
            reason = recorder.why_not(graph_module)
            if reason:
                raise NotRecordedError(reason, is_lasting=True)
            recording = recorder.record(function, inputs)
        except NotRecordedError as error:
            if error.is_lasting:
                self._refusal = str(error)
            self._seen[key] = False
            self._say(f"no CUDA graph, the ops run one by one: {error}")
            return None
        self._recordings[key] = recording
        return recording


def _is_plain(inputs: Sequence[Tensor]) -> bool:
    """Return True for a call that nothing but the kernels will see, with values in every input."""
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    if torch._C._len_torch_dispatch_stack() != 0:
        return False
    if torch._C._functorch.maybe_current_level() is not None:  # vmap, grad
        return False
    return all(type(x) is Tensor and x.numel() > 0 for x in inputs)


def _key(inputs: Sequence[Tensor]) -> Any:
    return tuple((x.shape, x.dtype, x.device, _memory_order(x)) for x in inputs)


def _memory_order(x: Tensor) -> torch.memory_format:
    """Return what kernels may be chosen by; orders other than these two are recorded contiguous."""
    if x.dim() != 4 or x.is_contiguous():
        return torch.contiguous_format
    is_nhwc = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_nhwc else torch.contiguous_format


def empty_for(x: Tensor) -> Tensor:
    """Return the memory that an input like x is copied to before a replay."""
    return torch.empty_like(x, memory_format=_memory_order(x))
