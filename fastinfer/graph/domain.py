"""The calls a captured graph answers: ranges and guards of its sizes, checked against the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from fastinfer.graph.errors import CaptureError
from fastinfer.graph.size_conditions import size_guard
from fastinfer.types.call import CallSpec, Constant, SizeRange, TensorInput, tensors_of

Shapes = Sequence[Sequence[int]]

#: Images and texts are halved to try other sizes, down to what most models still take.
LEAST_HALVED = 64


def model_signature(model: nn.Module) -> inspect.Signature:
    """Return the signature of the model's forward."""
    return inspect.signature(model.forward)


def call_spec(
    signature: inspect.Signature,
    in_spec: pytree.TreeSpec,
    leaves: list[Any],
    placeholders: list[fx.Node | None],
    exported: torch.export.ExportedProgram,
    unlifted: fx.GraphModule,
    *,
    example_was_one: bool,
) -> CallSpec:
    """Return the call of a captured graph with the sizes that torch.export found free."""
    names = _leaf_names(in_spec, leaves)
    ranges = {str(k): v for k, v in exported.range_constraints.items()}
    inputs: list[TensorInput | Constant] = []
    for name, leaf, placeholder in zip(names, leaves, placeholders, strict=True):
        if placeholder is None:
            inputs.append(Constant(name, leaf))
            continue
        shape = placeholder.meta["val"].shape
        sizes = tuple(_size_range(size, ranges, leaf.shape[i]) for i, size in enumerate(shape))
        inputs.append(TensorInput(name, leaf.dtype, leaf.device, sizes))
    tensor_inputs = [i for i in inputs if isinstance(i, TensorInput)]
    guard = size_guard([p for p in placeholders if p is not None], tensor_inputs)
    guard = guard or _shape_guard(unlifted, leaves, inputs)
    out_spec = exported.call_spec.out_spec
    if out_spec is None:
        raise CaptureError("torch.export gave no output structure")
    return CallSpec(signature, in_spec, tuple(inputs), out_spec, guard)


def _leaf_names(in_spec: pytree.TreeSpec, leaves: list[Any]) -> list[str]:
    bound = pytree.tree_unflatten(leaves, in_spec)
    paths, _ = pytree.tree_flatten_with_path(bound)
    names = []
    for path, _leaf in paths:
        first, rest = path[0], path[1:]
        names.append(f"{first.key}{pytree.keystr(rest)}")
    return names


def _size_range(size: Any, ranges: dict[str, Any], example: int) -> SizeRange:
    if not isinstance(size, torch.SymInt):
        return SizeRange(int(size), int(size))
    expression = size.node.expr
    if not expression.is_Symbol:
        # A size derived from others (2*s0): only the example's is known to be right without it.
        return SizeRange(example, example)
    bounds = ranges.get(str(expression))
    if bounds is None:
        return SizeRange(example, example)
    return SizeRange(int(bounds.lower), _upper(bounds.upper), str(expression))


def _upper(bound: Any) -> int | None:
    try:
        value = int(bound)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return None if value >= 2**62 else value


def _shape_guard(
    unlifted: fx.GraphModule, leaves: list[Any], inputs: Sequence[TensorInput | Constant]
) -> Callable[[Shapes], bool]:
    """Return a predicate over the shapes of the tensor inputs from torch.export's own guards.

    It is a function, so a model with it cannot be saved; it serves where `size_guard` does not.
    Free sizes below 2 are asked as 2: export excludes 0 and 1 from every free size, whether or not
    the model treats them differently, which `verified` finds out instead.
    """
    check = getattr(unlifted, "_guards_fn", None)
    if check is None:
        return lambda shapes: True
    kinds = [leaf.dtype if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
    constants = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    least = [
        [2 if size.is_free else 0 for size in i.sizes] if isinstance(i, TensorInput) else []
        for i in inputs
    ]

    def guard(shapes: Shapes) -> bool:
        remaining = iter(shapes)
        values: list[Any] = []
        for kind, constant, lows in zip(kinds, constants, least, strict=True):
            if kind is None:
                values.append(constant)
                continue
            shape = [max(size, low) for size, low in zip(next(remaining), lows, strict=True)]
            values.append(torch.empty(shape, dtype=kind, device="meta"))
        try:
            check(*values)
        except AssertionError:
            return False
        return True

    return guard


def verified(
    model: nn.Module,
    graph_module: fx.GraphModule,
    spec: CallSpec,
    bound: dict[str, Any],
    others: Sequence[dict[str, Any]] = (),
) -> CallSpec:
    """Return the spec with sizes 1 and 0 allowed where the graph answers them as the model.

    others: the bound arguments of further calls; where only a size below 2 keeps the graph from
    one, it is tried on that.

    Raises CaptureError when the graph differs from the model on the example, another batch or
    another call, or does not take the example.
    """
    spec = _relaxed(model, graph_module, spec, bound)
    if not spec.accepts(_shapes(bound)):
        # A batch of 1 is exported as 2, on which the model may insist.
        raise CaptureError("the captured graph does not take the sizes of the example")
    for other in others:
        spec = _widened(model, graph_module, spec, other)
    return spec


def _relaxed(
    model: nn.Module, graph_module: fx.GraphModule, spec: CallSpec, bound: dict[str, Any]
) -> CallSpec:
    """Return the spec with batch sizes 1 and 0 allowed where graph and model agree on them."""
    leaves, in_spec = pytree.tree_flatten(bound)
    answer = _agree(model, graph_module, spec, bound)
    if answer is None:
        raise CaptureError("the captured graph answers the example differently than the model")
    spec = replace(
        spec,
        contiguous=tuple(isinstance(x, torch.Tensor) and x.is_contiguous() for x in answer),
    )
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    batch = _batch_symbols(spec, tensors)
    size = tensors[0].shape[0] if batch else 0
    if size == 0:
        return spec

    def resized(count: int) -> dict[str, Any]:
        index = torch.arange(count) % size
        resized_leaves, position = [], 0
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                sizes = spec.tensor_inputs[position].sizes
                position += 1
                if sizes and sizes[0].symbol in batch:
                    leaf = leaf[index.to(leaf.device)]
            resized_leaves.append(leaf)
        return pytree.tree_unflatten(resized_leaves, in_spec)  # type: ignore[no-any-return]

    three = resized(3)
    # Other sizes are tried along with the batch where the model takes them: fewer pixels are
    # quicker, too.
    for other in (_halved(spec, three, batch), three):
        if not spec.accepts(_shapes(other)):
            continue
        try:
            wanted = _answer(model, spec, other)
        except CaptureError:
            if other is three:
                raise
            continue
        if not _same(wanted, _answer_of_graph(graph_module, spec, other)):
            raise CaptureError("the captured graph answers other sizes differently")
        break
    for low in (1, 0):
        try:
            # The example's own size was tried above; a call of a large model takes seconds.
            same = low == size or _agree(model, graph_module, spec, resized(low)) is not None
        except CaptureError:
            same = False
        if not same:
            break
        spec = _with_low(spec, dict.fromkeys(batch, low))
    return spec


def _halved(spec: CallSpec, bound: dict[str, Any], batch: frozenset[str]) -> dict[str, Any]:
    """Return the arguments with half of every free size from LEAST_HALVED on, but the batch."""
    leaves, structure = pytree.tree_flatten(bound)
    wanted = iter(spec.tensor_inputs)
    for at, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.Tensor):
            continue
        for dim, size in enumerate(next(wanted).sizes):
            if size.is_free and size.symbol not in batch and leaf.shape[dim] >= LEAST_HALVED:
                leaf = leaf.narrow(dim, 0, leaf.shape[dim] // 2)
        leaves[at] = leaf.contiguous() if leaves[at].is_contiguous() else leaf
    return pytree.tree_unflatten(leaves, structure)  # type: ignore[no-any-return]


def _batch_symbols(spec: CallSpec, tensors: Sequence[torch.Tensor]) -> frozenset[str]:
    """Return the symbols of dim 0 of the first tensor input and of those with as many rows.

    Only what is free from 2 on counts. Maps of several sizes, each with the batch in dim 0 and
    never meeting in one operator, have a symbol each.
    """
    if not tensors or not tensors[0].dim() or not spec.tensor_inputs[0].sizes[0].is_free:
        return frozenset()
    return frozenset(
        wanted.sizes[0].symbol
        for tensor, wanted in zip(tensors, spec.tensor_inputs, strict=True)
        if wanted.sizes
        and wanted.sizes[0].is_free
        and wanted.sizes[0].low == 2
        and tensor.shape[0] == tensors[0].shape[0]
    )


def _with_low(spec: CallSpec, lows: Mapping[str, int]) -> CallSpec:
    """Return the spec with the least size of each named symbol."""

    def lowered(wanted: TensorInput | Constant) -> TensorInput | Constant:
        if not isinstance(wanted, TensorInput):
            return wanted
        sizes = tuple(replace(s, low=min(s.low, lows.get(s.symbol, s.low))) for s in wanted.sizes)
        return replace(wanted, sizes=sizes)

    return replace(spec, inputs=tuple(lowered(i) for i in spec.inputs))


def _widened(
    model: nn.Module, graph_module: fx.GraphModule, spec: CallSpec, bound: dict[str, Any]
) -> CallSpec:
    """Return the spec, taking this call too if only sizes below 2 kept it from it."""
    tensors = spec.flatten_bound(bound)
    if tensors is None or any(
        t.dim() != len(wanted.sizes) for t, wanted in zip(tensors, spec.tensor_inputs, strict=True)
    ):
        return spec
    shapes = _shapes(bound)
    lows = {
        wanted.symbol: min(size, wanted.low)
        for shape, tensor_input in zip(shapes, spec.tensor_inputs, strict=True)
        for size, wanted in zip(shape, tensor_input.sizes, strict=True)
        if wanted.is_free and size < 2
    }
    wider = _with_low(spec, lows)
    if not wider.accepts(shapes):
        return spec
    if _agree(model, graph_module, spec, bound) is not None:
        return wider
    if lows and not spec.accepts(shapes):
        return spec
    raise CaptureError("the captured graph answers another call of the example differently")


def _shapes(bound: dict[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_of(bound)]


def _agree(
    model: nn.Module, graph_module: fx.GraphModule, spec: CallSpec, bound: dict[str, Any]
) -> list[Any] | None:
    """Return the model's flat answer; None where the graph's differs in form or values."""
    wanted = _answer(model, spec, bound)
    got = _answer_of_graph(graph_module, spec, bound)
    return pytree.tree_leaves(wanted) if _same(wanted, got) else None


def _answer(model: nn.Module, spec: CallSpec, bound: dict[str, Any]) -> Any:
    arguments = inspect.BoundArguments(spec.signature, bound)  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            return model(*_copied(arguments.args), **_copied(arguments.kwargs))
    except Exception as error:  # whatever the model's own code raises
        raise CaptureError(f"the example does not run: {type(error).__name__}: {error}") from error


def _answer_of_graph(graph_module: fx.GraphModule, spec: CallSpec, bound: dict[str, Any]) -> Any:
    try:
        with torch.no_grad():
            return spec.unflatten(graph_module(*[t.clone() for t in tensors_of(bound)]))
    except Exception as error:  # whatever an operator raises
        raise CaptureError(
            f"the captured graph does not run: {type(error).__name__}: {error}"
        ) from error


def _copied(values: Any) -> Any:
    """Return the arguments with tensors cloned: the model may write into them."""
    return pytree.tree_map_only(torch.Tensor, torch.clone, values)


def _same(wanted: Any, got: Any) -> bool:
    wanted_leaves, wanted_spec = pytree.tree_flatten(wanted)
    got_leaves, got_spec = pytree.tree_flatten(got)
    if wanted_spec != got_spec:
        return False
    return all(_same_leaf(w, g) for w, g in zip(wanted_leaves, got_leaves, strict=True))


def _same_leaf(wanted: Any, got: Any) -> bool:
    if not isinstance(wanted, torch.Tensor) or not isinstance(got, torch.Tensor):
        return type(wanted) is type(got) and bool(wanted == got)
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return False
    if not wanted.is_floating_point():
        return torch.equal(wanted, got)
    if wanted.numel() == 0:
        return True
    # The graph runs the same operators; only their order of summation over a batch may differ.
    tolerance = 64 * torch.finfo(wanted.dtype).eps ** 0.75
    largest = wanted.abs().nan_to_num(posinf=0.0).max().item()
    return torch.allclose(wanted, got, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
