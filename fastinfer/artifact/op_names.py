"""Which functions a stored graph may call, and their names in it."""

from __future__ import annotations

import builtins
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch

from fastinfer.artifact.errors import ArtifactError
from fastinfer.config import UnsupportedError
from fastinfer.ops.catalog import OPS

#: What a graph computes sizes with, besides operators. Nothing here imports, opens or runs code.
_MODULES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "operator": (
        operator,
        (
            "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lt", "mod", "mul", "ne",
            "neg", "not_", "or_", "pos", "pow", "sub", "truediv",
        ),
    ),
    "builtins": (builtins, ("abs", "max", "min", "round")),
    "math": (math, ("ceil", "floor", "trunc")),
    "torch": (
        torch,
        ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sqrt", "sym_sum"),
    ),
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{name}.{function}": getattr(module, function)
    for name, (module, functions) in _MODULES.items()
    for function in functions
    if hasattr(module, function)
}
_NAMES = {function: name for name, function in FUNCTIONS.items()}

_OWN = {op.qualified_name.partition("::")[2] for op in OPS}
#: Of aten, what opens a file, though it writes into no argument.
_REFUSED = {"from_file"}
#: Operators that begin with "_" are torch's own machinery; these few stand in captured graphs.
_PRIVATE = {
    "_adaptive_avg_pool2d", "_assert_scalar", "_assert_tensor_metadata", "_convolution",
    "_log_softmax", "_softmax", "_to_copy", "_unsafe_index", "_weight_norm",
}  # fmt: skip
_NAMESPACES = ("aten", "prims", "fastinfer")
_NAME = re.compile(r"(\w+)\.(\w+)\.(\w+)", re.ASCII)


def write_target(target: Any) -> str:
    """Return the name of a function that a graph calls: "aten.add.Tensor", "operator.getitem".

    Raises:
        UnsupportedError: the function is none that an artifact may name.
    """
    if isinstance(target, torch._ops.OpOverload):
        name = f"{target.namespace}.{target._opname}.{target._overloadname}"
        reason = _refused(target)
        if reason:
            raise UnsupportedError(f"save: op {name}: {reason}; such a model cannot be saved")
        return name
    if target in _NAMES:
        return _NAMES[target]
    raise UnsupportedError(
        f"save: expected a graph of operators of {', '.join(_NAMESPACES)}, got a call of "
        f"{getattr(target, '__name__', target)!r}; such a model cannot be saved"
    )


def read_target(name: Any) -> Callable[..., Any]:
    """Return the function of a name that `write_target` made.

    Raises:
        ArtifactError: there is no such function here, or an artifact may not name it.
    """
    if isinstance(name, str) and name in FUNCTIONS:
        return FUNCTIONS[name]
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1] not in _NAMESPACES:
        raise ArtifactError(
            f"load: op: expected one of {', '.join(_NAMESPACES)} or a known function, got {name!r}"
        )
    try:
        op = getattr(getattr(getattr(torch.ops, match[1]), match[2]), match[3])
    except (AttributeError, RuntimeError) as error:
        raise ArtifactError(
            f"load: op: {name} is not in torch {torch.__version__}; save the model with this torch"
        ) from error
    reason = _refused(op) if isinstance(op, torch._ops.OpOverload) else "it is no operator"
    if reason:
        raise ArtifactError(f"load: op: {name}: {reason}")
    function: Callable[..., Any] = op
    return function


def _refused(op: torch._ops.OpOverload) -> str:
    """Return why an artifact may not name an operator, "" if it may."""
    name = op._opname
    if op.namespace not in _NAMESPACES:
        return f"it is of another library ({op.namespace})"
    if op.namespace == "fastinfer":
        return "" if name in _OWN else "fastinfer has no such op"
    if op._schema.is_mutable:
        return "it writes into its arguments"
    if name in _REFUSED or (name.startswith("_") and name not in _PRIVATE):
        return "it is not on the list of operators an artifact may hold"
    if not torch._C._dispatch_has_kernel(op.name()):
        return "it is a function of TorchScript, not an operator"
    return ""
