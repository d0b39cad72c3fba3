"""Recording and replaying calls as CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.engine.cuda_graphs import Function, NotRecordedError, empty_for
from fastinfer.engine.recordable import why_not_recordable

#: Calls before the recorded one: what they compile, tune and allocate is then there.
WARM_UP = 2


class _Device:
    """What all graphs of a device share.

    One stream to record on, so that what is cached for a stream (cuBLAS's workspace) is there once,
    and one pool for what lies between inputs and results. So no two graphs may run at a time:
    `event` is behind the last one, and another stream waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lock = threading.Lock()
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.event = torch.cuda.Event()
        self._last: int | None = None

    def enter(self, stream: torch.cuda.Stream) -> None:
        """Let a stream wait for the last graph, if another stream runs it."""
        if self._last is not None and self._last != stream.cuda_stream:
            stream.wait_event(self.event)

    def leave(self, stream: torch.cuda.Stream) -> None:
        """Note that a stream runs the last graph."""
        self.event.record(stream)
        self._last = stream.cuda_stream


_devices: dict[int, _Device] = {}
_devices_lock = threading.Lock()


def _shared(device: torch.device) -> _Device:
    index = torch.cuda.current_device() if device.index is None else device.index
    found = _devices.get(index)
    if found is None:
        with _devices_lock:
            found = _devices.setdefault(index, _Device(torch.device("cuda", index)))
    return found


def _guard(device: torch.device) -> Any:
    """Make a device the current one inside: streams are asked for by it."""
    is_current = device.index in (None, torch.cuda.current_device())
    return nullcontext() if is_current else torch.cuda.device(device)


class CudaRecording:
    """A CUDA graph with the memory of its inputs and results."""

    def __init__(
        self,
        shared: _Device,
        graph: torch.cuda.CUDAGraph,
        inputs: Sequence[Tensor],
        outputs: Sequence[Any],
    ) -> None:
        self._shared, self._graph = shared, graph
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the results for these inputs, in memory of their own: no wait, 3 launches."""
        shared = self._shared
        with _guard(shared.device), shared.lock:
            stream = torch.cuda.current_stream(shared.device)
            shared.enter(stream)
            for mine, given in zip(self._inputs, inputs, strict=True):
                mine.copy_(given)
            self._graph.replay()
            answer = tuple(o.clone() if isinstance(o, Tensor) else o for o in self._outputs)
            shared.leave(stream)
        return answer

    def run(self) -> None:
        """Run the graph on the inputs that it has, and leave its results where they are."""
        shared = self._shared
        with _guard(shared.device), shared.lock:
            stream = torch.cuda.current_stream(shared.device)
            shared.enter(stream)
            self._graph.replay()
            shared.leave(stream)


class CudaRecorder:
    """Records calls on GPUs."""

    device_type = "cuda"

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaRecorder:
        return self

    def is_recordable(self, device: torch.device) -> bool:
        """Return False while somebody captures this thread's work, or autocast would change it."""
        if torch.is_autocast_enabled("cuda"):
            return False
        with _guard(device):
            return not torch.cuda.is_current_stream_capturing()

    def why_not(self, graph_module: fx.GraphModule) -> str:
        """Return what in a graph waits for the device, "" where nothing is known to."""
        return why_not_recordable(graph_module)

    def record(
        self, function: Function, inputs: Sequence[Tensor], device: torch.device | None = None
    ) -> CudaRecording:
        """Return the call function(*inputs) as a CUDA graph. device: the inputs', if there are any.

        Other threads may work on the GPU meanwhile, this one waits for it. A second try is made
        when memory is out and torch's cache can be emptied.

        Raises:
            NotRecordedError: something in it cannot be captured, or memory is out.
        """
        device = inputs[0].device if device is None else device
        with _guard(device):
            shared = _shared(device)
            with shared.lock:
                try:
                    return _record(shared, function, inputs)
                except torch.OutOfMemoryError:
                    torch.cuda.synchronize(shared.device)
                    torch.cuda.empty_cache()
                try:
                    return _record(shared, function, inputs)
                except torch.OutOfMemoryError as error:
                    shapes = ", ".join(str(list(x.shape)) for x in inputs)
                    raise NotRecordedError(
                        f"out of memory for inputs {shapes}: {_first_line(error)}",
                        is_lasting=False,
                    ) from error


def _record(shared: _Device, function: Function, inputs: Sequence[Tensor]) -> CudaRecording:
    stream = shared.stream
    # Tensors of inference mode could not be written to by a call outside of it.
    with torch.inference_mode(False), torch.no_grad():
        shared.enter(stream)
        stream.wait_stream(torch.cuda.current_stream(shared.device))
        with torch.cuda.stream(stream):
            # Memory of this stream: what reuses it later was enqueued here, behind the last replay.
            statics = [empty_for(x).copy_(x) for x in inputs]
            try:
                for _ in range(WARM_UP):
                    function(*statics)
                stream.synchronize()
            finally:
                shared.leave(stream)
            graph = torch.cuda.CUDAGraph()
            outputs = _capture(shared, graph, lambda: function(*statics))
    return CudaRecording(shared, graph, statics, outputs)


def _capture(
    shared: _Device, graph: torch.cuda.CUDAGraph, call: Callable[[], Sequence[Any]]
) -> Sequence[Any]:
    """Return the results of a call that is captured on the current stream.

    Raises NotRecordedError or torch.OutOfMemoryError, with the stream as it was.
    """
    error: Exception | None = None
    outputs: Sequence[Any] = ()
    # Calls of other threads that a capture forbids (cudaMalloc) are theirs to make.
    graph.capture_begin(pool=shared.pool, capture_error_mode="thread_local")
    try:
        outputs = call()
    except Exception as raised:  # whatever an operator raises that cannot be captured
        error = raised
    try:
        graph.capture_end()
    except Exception as raised:
        _abandon(shared)
        error = error or raised
    if error is None:
        return outputs
    del graph
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    raise NotRecordedError(
        f"{type(error).__name__}: {_first_line(error)}", is_lasting=True
    ) from error


def _abandon(shared: _Device) -> None:
    """Let go of the pool of a capture that did not end well; the next one gets another.

    Torch's allocator may still wait for the end of the capture (torch 2.11). Where it does not, it
    says so by an error.
    """
    with suppress(RuntimeError, AttributeError, TypeError):
        torch._C._cuda_endAllocateToPool(shared.device.index, shared.pool)
    shared.pool = torch.cuda.graph_pool_handle()
    # The random generator still takes itself for captured, and would refuse its next number, until
    # a capture ends well (torch 2.11).
    with suppress(RuntimeError):
        one, graph = torch.zeros(1, device=shared.device), torch.cuda.CUDAGraph()
        graph.capture_begin(capture_error_mode="thread_local")
        one.add_(1)
        graph.capture_end()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
