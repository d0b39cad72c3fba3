"""Layer by layer: which output of the reference a converted layer stands for, and its error.

A converted layer has its BatchNorm, activation and residual inside, so its output is not the one
of the reference's convolution of that name but of a module that follows it, or of a function that
the model calls itself. Which one is found by trial: of those that finish after that layer starts
and before the next but one starts, the one with the same output shape and the smallest error.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fastinfer.measure.accuracy import ErrorSums

#: Layers whose outputs are compared; everything else is fused into them or left as it was.
WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
#: A residual is added after the shortcut's own convolution, so outputs are looked for past one.
LAYERS_PER_OUTPUT = 2
#: Below this no module of the reference can be said to answer what the layer answers.
MIN_MATCH_DB = 1.0


@dataclass(frozen=True)
class LayerError:
    """One converted layer against the output of the reference's module `reference_name`.

    Or of a function behind a module, as "conv1, then relu". `errors` is None when nothing could be
    compared; `reason` says why.
    """

    name: str
    reference_name: str = ""
    errors: ErrorSums | None = None
    reason: str = ""


class LayerErrors:
    """Collects the errors of every layer of `fast` whose name a layer of `reference` has."""

    def __init__(self, reference: nn.Module, fast: nn.Module) -> None:
        self._reference = reference
        self._weighted = {
            name: module for name, module in reference.named_modules() if _is_weighted(module)
        }
        # A converted model may hold its float original too: whichever of the name runs, counts.
        self._converted: dict[str, list[nn.Module]] = defaultdict(list)
        for name, module in _same_named(self._weighted, fast):
            self._converted[name].append(module)
        self._outputs: dict[str, list[Any]] = defaultdict(list)
        self._sums: dict[tuple[str, str], ErrorSums] = defaultdict(ErrorSums)
        self._reasons: dict[str, str] = {}
        self._comparing = False

    @contextmanager
    def watching_fast(self) -> Iterator[None]:
        """Record the layers' outputs while the converted model runs."""
        self._outputs.clear()
        with ExitStack() as stack:
            for name, modules in self._converted.items():
                for module in modules:
                    hook = module.register_forward_hook(self._recorder(name))
                    stack.callback(hook.remove)
            yield

    @contextmanager
    def watching_reference(self) -> Iterator[None]:
        """Compare with what was recorded while the reference runs."""
        recent: deque[tuple[str, torch.Tensor]] = deque(maxlen=LAYERS_PER_OUTPUT)
        calls: dict[str, int] = defaultdict(int)
        functions = _Functions(lambda name, output: self._compare(name, output, recent))
        with ExitStack() as stack:
            for name, module in self._reference.named_modules():
                stack.callback(module.register_forward_pre_hook(functions.enter(name)).remove)
                if name in self._converted:
                    pre = module.register_forward_pre_hook(self._opener(name, recent, calls))
                    stack.callback(pre.remove)
                if name:
                    hook = module.register_forward_hook(self._comparer(name, recent))
                    stack.callback(hook.remove)
                hook = module.register_forward_hook(functions.leave, always_call=True)
                stack.callback(hook.remove)
            stack.enter_context(functions)
            yield

    def rows(self) -> list[LayerError]:
        """Return a row per weighted layer of the reference, in its order."""
        candidates: dict[str, list[tuple[str, ErrorSums]]] = defaultdict(list)
        for (layer, reference_name), sums in self._sums.items():
            candidates[layer].append((reference_name, sums))
        return [self._row(name, candidates[name]) for name in self._weighted]

    def _row(self, name: str, candidates: list[tuple[str, ErrorSums]]) -> LayerError:
        if name not in self._converted:
            return LayerError(name, reason="no layer of that name in the converted model")
        if name in self._reasons:
            return LayerError(name, reason=self._reasons[name])
        if not candidates:
            return LayerError(name, reason="did not run, or no output of its shape to compare")
        best, sums = max(candidates, key=lambda pair: pair[1].sqnr_db)
        if sums.sqnr_db < MIN_MATCH_DB:
            reason = f"no module answers what it answers (closest {best}, {sums.sqnr_db:.1f} dB)"
            return LayerError(name, reason=reason)
        return LayerError(name, best, sums)

    def _recorder(self, name: str) -> Callable[..., None]:
        def record(module: nn.Module, _args: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                self._reasons[name] = f"answers {type(output).__name__}, not a tensor"
            elif output.is_floating_point():
                # Cloned: a following in-place activation would change it.
                self._outputs[name].append(output.detach().clone())
            elif (quant := getattr(module, "output_quant", None)) is not None:
                self._outputs[name].append(dequantized(output, quant))
            else:
                self._reasons[name] = f"answers {output.dtype} and its scale is not known"

        return record

    def _opener(
        self,
        name: str,
        recent: deque[tuple[str, torch.Tensor]],
        calls: dict[str, int],
    ) -> Callable[..., None]:
        def open_layer(_module: nn.Module, _args: Any) -> None:
            outputs, index = self._outputs[name], calls[name]
            calls[name] += 1
            if index < len(outputs):
                recent.append((name, outputs[index]))

        return open_layer

    def _comparer(
        self, reference_name: str, recent: deque[tuple[str, torch.Tensor]]
    ) -> Callable[..., None]:
        def compare_output(_module: nn.Module, _args: Any, output: Any) -> None:
            self._compare(reference_name, output, recent)

        return compare_output

    def _compare(
        self, reference_name: str, output: Any, recent: deque[tuple[str, torch.Tensor]]
    ) -> None:
        """Add the errors of what the last layers answered against `output`."""
        if self._comparing or not isinstance(output, torch.Tensor):
            return  # what is computed below is no function of the model's
        # Older layers end in the block they belong to, so others need not be tried.
        parent = reference_name.rpartition(".")[0]
        parent += "." if parent else ""
        newest = recent[-1][0] if recent else ""
        self._comparing = True
        for layer, actual in recent:
            is_near = layer == newest or layer.startswith(parent)
            if is_near and actual.shape == output.shape:
                self._sums[layer, reference_name].add(output, actual)
        self._comparing = False


class _Functions(TorchFunctionMode):
    """Hands on what the model's own code computes between its modules, as F.relu or a sum.

    Such an output is called after the module that finished last in the same block.
    """

    def __init__(self, found: Callable[[str, torch.Tensor], None]) -> None:
        super().__init__()
        self._found = found
        # Of each module that runs: its name, is it a leaf, the last module that finished in it.
        self._running: list[tuple[str, bool, list[str]]] = []

    def enter(self, name: str) -> Callable[..., None]:
        """Return a pre-hook for the module of that name."""

        def hook(module: nn.Module, _args: Any) -> None:
            leaf = next(module.children(), None) is None
            self._running.append((name, leaf, [f"{name}.forward" if name else "forward"]))

        return hook

    def leave(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        """Do what a module's hook after its call must: every module has one."""
        name, _, _ = self._running.pop()
        if self._running:
            self._running[-1][2][0] = name

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call func, and hand its answer on where no single layer called it."""
        output = func(*args, **(kwargs or {}))
        if self._running and isinstance(output, torch.Tensor) and output.is_floating_point():
            _, leaf, last = self._running[-1]
            if not leaf:
                self._found(f"{last[0]}, then {func.__name__.strip('_')}", output)
        return output


def dequantized(q: torch.Tensor, quant: Any) -> torch.Tensor:
    """Return the real values of q, uint8 [N, C, ...] or [..., C], under a `TensorQuant`."""
    scale = torch.tensor(quant.scale, device=q.device)
    shift = torch.tensor(quant.shift, device=q.device)
    channel = 1 if q.dim() >= 4 else q.dim() - 1
    shape = [-1 if axis == channel else 1 for axis in range(q.dim())]
    if scale.numel() > 1:
        scale = scale.reshape(shape)
    if shift.numel() > 1:
        shift = shift.reshape(shape)
    return scale * (q.float() - quant.zero_point) + shift


def _is_weighted(module: nn.Module) -> bool:
    return isinstance(module, WEIGHTED)


def _same_named(weighted: dict[str, nn.Module], fast: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (reference name, module of fast): names equal, or equal below a wrapper of fast's."""
    wanted = {name.replace(".", "_"): name for name in weighted}
    for name, module in fast.named_modules():
        parts = name.split(".")
        for start in range(len(parts)):
            found = wanted.get("_".join(parts[start:]))
            if found is not None:
                yield found, module
                break
