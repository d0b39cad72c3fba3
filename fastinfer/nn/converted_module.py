"""The module `convert` returns: the model's signature and outputs over a lowered graph."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, fx, nn

from fastinfer.nn.device_arguments import put_on
from fastinfer.nn.float_fallback import FloatFallback, own_tensors
from fastinfer.nn.graph_code import GraphCode, only_region
from fastinfer.nn.no_gradient import wants_gradient, without_gradient
from fastinfer.nn.packed_module import PackedModule, device_after
from fastinfer.nn.shared_graph import SharedGraph
from fastinfer.types.call import CallSpec, Constant, TensorInput, tensors_of

#: Shapes whose check is remembered; more make the oldest be checked again.
KNOWN_SHAPES = 256


class Graphs(Protocol):
    """Replays whole calls of a graph: fastinfer.engine.CudaGraphs."""

    @property
    def device_type(self) -> str:
        """Of the devices whose calls are replayed."""

    def __len__(self) -> int:
        """Return how many calls are recorded."""

    def run(
        self, graph_module: fx.GraphModule, function: Callable[..., Any], inputs: Sequence[Tensor]
    ) -> Sequence[Any] | None:
        """Return what function answers, or None where it is to be called."""

    def clear(self) -> None:
        """Forget what was recorded."""


class InferenceModule(nn.Module):
    """What every result of `convert` has in common: inference only, float32, a report."""

    def __init__(self, report: Any) -> None:
        super().__init__()
        self._report = report
        self.training = False

    def train(self, mode: bool = True) -> InferenceModule:
        """Stay in eval mode; RuntimeError when training is asked for."""
        if mode:
            raise RuntimeError(
                "train: a converted model is for inference; train the original model and call "
                "fastinfer.convert again"
            )
        for module in self.children():
            module.train(False)
        return self

    @property
    def device(self) -> torch.device:
        """Where the tensors of the model are; cpu if it has none."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((t.device for t in tensors), torch.device("cpu"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InferenceModule:
        # All that a layer would refuse is asked before the first tensor is moved.
        for module in self.modules():
            if isinstance(module, PackedModule):
                module.check_move(fn)
        probe = fn(torch.empty(0, dtype=torch.float32))
        if probe.dtype != torch.float32:
            raise RuntimeError(
                f"to: a converted model computes in the dtypes it was converted to, got "
                f"{probe.dtype}; convert the original model in that dtype instead"
            )

        def in_its_dtype(tensor: Tensor) -> Tensor:
            applied = fn(tensor)
            return applied if applied.dtype == tensor.dtype else tensor

        super()._apply(in_its_dtype, recurse)
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Raise TypeError: a pickle would run code on loading, and holds for one version only."""
        raise TypeError(
            "fastinfer: a converted model is not pickled; use fastinfer.save(fast, path) and "
            "fastinfer.load(path), or convert in the other process and send the state_dict"
        )

    def __copy__(self) -> InferenceModule:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> InferenceModule:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class ConvertedModule(InferenceModule):
    """A lowered graph that answers the calls of the model it came from.

    regions: the same graph on the same submodules with regions of it as one call each, or None.
    Calls on a CPU run on it, and tools that trace see its regions. graphs: replays whole calls of
    the lowered graph on a GPU, if there. Calls that the graph does not hold for
    go to the float model; without one, as after `fastinfer.load`, they raise ValueError, and so do
    those that torch.export or torch.jit.trace records.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        call: CallSpec,
        report: Any,
        model: nn.Module | None,
        regions: fx.GraphModule | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        super().__init__(report)
        if model is not None:
            own_tensors(graph_module, model)
        # "graph" would be a name of its own where torch.export makes a GraphModule of this.
        self.lowered = SharedGraph(graph_module, graph_module.graph).eval()
        # In a tuple: as a submodule it would put every layer into the state_dict twice.
        self._regions = () if regions is None else (regions.eval(),)
        self._code = GraphCode()
        self._fallback = None if model is None else FloatFallback(model)
        self._known: dict[Any, bool] = {}
        self._graphs = graphs
        self._takes_one = _takes_one_tensor(call)
        self._one_output = call.out_spec.is_leaf()
        self._set_device(call)
        # A class of its own carries the model's signature, which tools read from `forward`.
        self.__class__ = self._class_for(model, call.signature)

    @classmethod
    def _class_for(
        cls, model: nn.Module | None, signature: inspect.Signature
    ) -> type[ConvertedModule]:
        return type("ConvertedModule", (cls,), {"forward": forward_with(signature, cls._answer)})

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        if self._straight is not None and len(args) == 1 and not kwargs:
            region = self._regions[0]._modules[self._straight]
            answer = region.answer(args[0], self._known)  # type: ignore[union-attr, operator]
            if answer is not None:
                return answer
        if self._takes_one and len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
            x = args[0]
            # A subclass of Tensor has a shape of its own kind while it is traced.
            if type(x) is Tensor and not x.requires_grad and self._is_known(x):
                outputs = self._replayed(x) if self._replays else self._code(self._graph(), x)
                return outputs[0] if self._one_output else self._call.unflatten(outputs)
            flat: tuple[Any, ...] | None = args
        else:
            flat = self._call.flatten(args, kwargs)
        if wants_gradient(tensors_of((args, kwargs)) if flat is None else flat):
            return without_gradient(self._answer, args, kwargs)
        if flat is None or not self._holds(flat):
            return self._run_fallback(args, kwargs)
        graph = self._graph()
        if _is_traced():
            outputs = graph.forward(*flat)
        else:
            outputs = self._replayed(*flat) if self._replays else self._code(graph, *flat)
        return outputs[0] if self._one_output else self._call.unflatten(outputs)

    def _graph(self) -> fx.GraphModule:
        return self._regions[0] if self._runs_regions else self.lowered

    def _replayed(self, *flat: Tensor) -> Sequence[Any]:
        """Return the graph's answer, as one replay where that can be."""
        assert self._graphs is not None
        answer = self._graphs.run(self.lowered, self._run_ops, flat)
        return self._run_ops(*flat) if answer is None else answer

    @property
    def is_replayed(self) -> bool:
        """True when calls of a shape that came twice are replayed as one."""
        return self._replays and self._graphs is not None and len(self._graphs) > 0

    def _run_ops(self, *flat: Tensor) -> Sequence[Any]:
        outputs: Sequence[Any] = self._code(self.lowered, *flat)
        return outputs

    def _set_device(self, call: CallSpec) -> None:
        """Take the calls of call, and note where its tensors are."""
        inputs = call.tensor_inputs
        self._call = call
        self._device = inputs[0].device if inputs else torch.device("cpu")
        self._runs_regions = bool(self._regions) and self._device.type == "cpu"
        self._replays = bool(
            inputs and self._graphs is not None and self._graphs.device_type == self._device.type
        )
        goes_straight = self._runs_regions and self._takes_one and self._one_output
        self._straight = (
            only_region(self._regions[0]) if goes_straight and not self._replays else None
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InferenceModule:
        target = device_after(fn, self._device)
        super()._apply(fn, recurse)
        if target != self._device:
            self._known.clear()
            self._set_device(self._call.on(target))
            for graph_module in (self.lowered, *self._regions):
                put_on(graph_module, target)
            if self._graphs is not None:
                self._graphs.clear()
            if self._fallback is not None:
                self._fallback = self._fallback.on(target)
        return self

    def _is_known(self, x: Tensor) -> bool:
        if _is_traced():
            return False
        return self._known.get((x.shape, x.dtype, x.device), False)

    def _holds(self, flat: tuple[Any, ...]) -> bool:
        if _is_traced():
            return self._fits(flat) and self._call.accepts_sizes(_sizes(flat))
        keys = [(t.shape, t.dtype, t.device) for t in flat]
        key = keys[0] if len(keys) == 1 else tuple(keys)
        known = self._known.get(key)
        if known is None:
            known = self._fits(flat) and self._call.accepts([tuple(t.shape) for t in flat])
            if len(self._known) >= KNOWN_SHAPES:
                self._known.clear()
            self._known[key] = known
        return known

    def _fits(self, flat: tuple[Any, ...]) -> bool:
        """Return True when dtypes and devices are the graph's."""
        return all(
            (t.dtype == wanted.dtype and t.device == wanted.device) or self._refuse(t, wanted)
            for t, wanted in zip(flat, self._call.tensor_inputs, strict=True)
        )

    def _refuse(self, tensor: Tensor, wanted: TensorInput) -> bool:
        """Raise TypeError for a tensor of another dtype or device; a subclass may answer False."""
        raise TypeError(
            f"convert: input {wanted.name!r}: expected {wanted.describe()} on {wanted.device}, got "
            f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
        )

    def _run_fallback(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            # What they record runs without us: it would be float at every size.
            raise ValueError(
                f"{self._wanted_and_got(args, kwargs)}, which only the float model takes; "
                "export or trace with a call that the graph holds for"
            )
        if self._fallback is None:
            raise ValueError(
                f"{self._wanted_and_got(args, kwargs)}; a loaded model has no float model to "
                "answer other calls: convert the original with such an example and save it again"
            )
        try:
            return self._fallback(*args, **kwargs)
        except Exception as error:
            raise ValueError(
                f"{self._wanted_and_got(args, kwargs)}; the float model does not take "
                f"them either: {error}"
            ) from error

    def _wanted_and_got(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return what the graph takes and what came."""
        wanted = [f"{i.name!r} {i.describe()}" for i in self._call.tensor_inputs]
        wanted += [f"{i.name}={i.value!r}" for i in self._call.inputs if isinstance(i, Constant)]
        got = ", ".join(
            f"{list(_sizes([a])[0])}" if isinstance(a, Tensor) else type(a).__name__
            for a in (*args, *kwargs.values())
        )
        return f"convert: expected inputs {', '.join(wanted)}, got {got}"


def region_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of every graph with regions in it, each with the path of the graph's part.

    The path is "" where the whole model is one graph.
    """
    for path, part in model.named_modules():
        if isinstance(part, ConvertedModule):
            for graph_module in part._regions:
                for module in graph_module.modules():
                    yield path.removeprefix("model."), module


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _sizes(flat: Sequence[Tensor]) -> list[Sequence[int]]:
    """Return the shapes, as numbers where torch.jit.trace would give tensors."""
    if not torch.jit.is_tracing():
        return [t.shape for t in flat]
    with warnings.catch_warnings():
        # That these numbers become constants is the point: they are compared once, now.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return [[int(size) for size in t.shape] for t in flat]


def _takes_one_tensor(call: CallSpec) -> bool:
    """Return True when a call with one positional tensor has the form that was captured."""
    if len(call.tensor_inputs) != 1:
        return False
    try:
        return call.flatten((torch.empty(0),), {}) is not None
    except TypeError:
        return False


def forward_with(signature: inspect.Signature, answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `forward` for a module's class that shows this signature and does as `answer`."""
    # A function of its own with the same code: one that called it would be a frame more to fetch.
    forward = types.FunctionType(
        answer.__code__, answer.__globals__, "forward", closure=answer.__closure__
    )
    forward.__doc__ = "Return what the model returns."
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = list(signature.parameters.values())
    named_self = any(p.name == "self" for p in parameters)
    if not named_self:
        forward.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[own, *parameters]
        )
    return forward


class ModulePath(InferenceModule):
    """The user's own module with packed leaf layers (or unchanged), called as it is."""

    def __init__(self, model: nn.Module, report: Any) -> None:
        super().__init__(report)
        self.model = model.eval().requires_grad_(False)
        with contextlib.suppress(TypeError, ValueError):
            self.__signature__ = inspect.signature(model.forward)
            # As ConvertedModule: torch.export names inputs by the signature of `forward`.
            members = {"forward": forward_with(self.__signature__, ModulePath._answer)}
            self.__class__ = type("ModulePath", (ModulePath,), members)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the model returns."""
        return self._answer(*args, **kwargs)

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and wants_gradient(tensors_of((args, kwargs))):
            return without_gradient(self.model, args, kwargs)
        return self.model(*args, **kwargs)
