"""CallSpec as JSON: signature, structures, inputs, and the sizes the graph holds for."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from typing import Any

from torch.utils import _pytree as pytree

from fastinfer.artifact.errors import ArtifactError
from fastinfer.artifact.values import DTYPES, read_value, write_value
from fastinfer.config import UnsupportedError
from fastinfer.types.call import CallSpec, Constant, SizeRange, TensorInput
from fastinfer.types.size_guard import Expression, SizeGuard

_KINDS = {kind.name: kind for kind in inspect._ParameterKind}


def write_call(call: CallSpec) -> dict[str, Any]:
    """Return a CallSpec as data.

    Raises:
        UnsupportedError: a default, a structure or a condition on sizes that is no data.
    """
    if not isinstance(call.guard, SizeGuard):
        raise UnsupportedError(
            "save: expected conditions on sizes that can be stored, got one that torch.export has "
            "as code only; convert with an example of fewer free sizes"
        )
    return {
        "signature": [_write_parameter(p) for p in call.signature.parameters.values()],
        "in": _write_structure(call.in_spec, "input"),
        "inputs": [_write_input(i) for i in call.inputs],
        "out": _write_structure(call.out_spec, "output"),
        "sizes": [list(place) for place in call.guard.places],
        "conditions": [_write_expression(c) for c in call.guard.conditions],
        "contiguous": list(call.contiguous),
    }


def read_call(data: dict[str, Any]) -> CallSpec:
    """Return the CallSpec of what `write_call` made.

    Raises:
        ArtifactError, ValueError: it is not of its making.
    """
    inputs = tuple(_read_input(i) for i in data["inputs"])
    ranks = [len(i.sizes) for i in inputs if isinstance(i, TensorInput)]
    places = tuple((str(name), index, dim) for name, index, dim in data["sizes"])
    if not all(0 <= i < len(ranks) and 0 <= dim < ranks[i] for _, i, dim in places):
        raise ArtifactError(f"load: expected sizes of the inputs, got {data['sizes']}")
    in_spec = _read_structure(data["in"])
    if in_spec.num_leaves != len(inputs):
        raise ArtifactError(f"load: expected {in_spec.num_leaves} inputs, got {len(inputs)}")
    return CallSpec(
        inspect.Signature([_read_parameter(p) for p in data["signature"]]),
        in_spec,
        inputs,
        _read_structure(data["out"]),
        SizeGuard(places, tuple(_read_expression(c) for c in data["conditions"])),
        tuple(map(bool, data["contiguous"])),
    )


def _write_parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    row: dict[str, Any] = {"name": parameter.name, "kind": parameter.kind.name}
    if parameter.default is not inspect.Parameter.empty:
        row["default"] = write_value(parameter.default, f"default of {parameter.name}")
    return row


def _read_parameter(row: dict[str, Any]) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    default = read_value(row["default"]) if "default" in row else empty
    return inspect.Parameter(row["name"], _KINDS[row["kind"]], default=default)


def _write_input(wanted: TensorInput | Constant) -> dict[str, Any]:
    if isinstance(wanted, Constant):
        return {"name": wanted.name, "value": write_value(wanted.value, f"input {wanted.name}")}
    return {
        "name": wanted.name,
        "dtype": str(wanted.dtype).removeprefix("torch."),
        "device": write_value(wanted.device, f"input {wanted.name}")["device"],
        "sizes": [[size.low, size.high, size.symbol] for size in wanted.sizes],
    }


def _read_input(row: dict[str, Any]) -> TensorInput | Constant:
    if "value" in row:
        return Constant(row["name"], read_value(row["value"]))
    sizes = tuple(SizeRange(low, high, symbol) for low, high, symbol in row["sizes"])
    device = read_value({"device": row["device"]})
    return TensorInput(row["name"], DTYPES[row["dtype"]], device, sizes)


class _Leaf:
    """Stands for a value in a structure."""


def _write_structure(spec: pytree.TreeSpec, what: str) -> Any:
    """Return a structure of tuples, lists and dicts, "*" for a value."""
    return _write_nest(pytree.tree_unflatten([_Leaf()] * spec.num_leaves, spec), what)


def _write_nest(nest: Any, what: str) -> Any:
    if isinstance(nest, _Leaf):
        return "*"
    if type(nest) is tuple:
        return {"tuple": [_write_nest(v, what) for v in nest]}
    if type(nest) is list:
        return {"list": [_write_nest(v, what) for v in nest]}
    if type(nest) in (dict, OrderedDict):
        items = [[write_value(k, what), _write_nest(v, what)] for k, v in nest.items()]
        return {"dict" if type(nest) is dict else "ordered_dict": items}
    raise UnsupportedError(
        f"save: {what}: expected tensors in tuples, lists and dicts, got a {type(nest).__name__}, "
        "whose class cannot be stored; return one of these"
    )


def _read_structure(data: Any) -> pytree.TreeSpec:
    return pytree.tree_structure(_read_nest(data))


def _read_nest(data: Any) -> Any:
    if data == "*":
        return 0
    ((kind, content),) = data.items()
    if kind in ("tuple", "list"):
        values = [_read_nest(v) for v in content]
        return tuple(values) if kind == "tuple" else values
    items = {read_value(k): _read_nest(v) for k, v in content}
    return {"dict": dict, "ordered_dict": OrderedDict}[kind](items)


def _write_expression(expression: Expression) -> Any:
    if not isinstance(expression, tuple):
        return expression
    return [_write_expression(part) for part in expression]


def _read_expression(data: Any) -> Expression:
    if isinstance(data, list):
        return tuple(_read_expression(part) for part in data)
    if type(data) in (int, str):
        return data  # type: ignore[no-any-return]
    raise ArtifactError(f"load: expected a condition on sizes, got {str(data)[:80]}")
