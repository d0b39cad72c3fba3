"""A layer as two: a weight of fewer ranks, where that takes fewer multiplications."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.gram import Gram, Moments
from fastinfer.compress.prune.calibration import calls_of
from fastinfer.compress.prune.geometry import Geometry
from fastinfer.compress.prune.low_rank_factors import METHODS, low_rank_factors, rank_of_energy
from fastinfer.compress.prune.modules import layer_geometry
from fastinfer.compress.prune.request import check_ignored, check_model
from fastinfer.types.call import Call, tensors_of
from fastinfer.types.example import example_call

ATTRIBUTE = "_low_rank_report"

#: A pair must take fewer multiplications than the layer by this factor to be considered: it reads
#: and writes one more tensor.
MARGIN = 1.25
#: (layer, pair, input) -> whether the pair is the faster.
Faster = Callable[[nn.Module, nn.Module, Tensor], bool]


@dataclass(frozen=True)
class LayerRank:
    """A layer: its full rank, the one it has now, and the share of its output's power that is kept.

    rank equals `full` where the layer stayed, for `reason`.
    """

    name: str
    full: int
    rank: int
    energy: float = 1.0
    reason: str = ""


@dataclass
class LowRankReport:
    """What `factorize` did; str() is a table for people."""

    layers: list[LayerRank] = field(default_factory=list)
    parameters: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        """Return a table for people."""
        width = max([len(layer.name) for layer in self.layers] + [5])
        before, after = self.parameters
        lines = [
            f"parameters {before:,} -> {after:,}",
            f"{'layer':<{width}}  {'full':>5}  {'rank':>5}  energy",
        ]
        for row in self.layers:
            text = f"{row.energy:.2%}  {row.reason}".rstrip()
            lines.append(f"{row.name:<{width}}  {row.full:>5}  {row.rank:>5}  {text}")
        return "\n".join(lines)


@torch.no_grad()
def factorize_layers(
    model: nn.Module,
    example_inputs: Any,
    *,
    rank: int | float | None = None,
    energy: float | None = None,
    method: str = "svd",
    calibration: Iterable[Any] | None = None,
    ignore: Sequence[str] = (),
    round_to: int = 16,
    faster: Faster | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a copy of the model in which layers of low rank are two layers each.

    A linear becomes two; a convolution becomes one to `rank` channels and a 1x1 convolution. It is
    done where the pair takes fewer multiplications by MARGIN and, where `faster` is given, is the
    faster. `low_rank_report` says what was done. The model is untouched.

    Args:
        model: any nn.Module on cpu.
        example_inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword
            arguments; layers that it does not reach stay.
        rank: how many ranks a layer keeps, or as a float the share of its full rank, 0..1.
        energy: instead of rank, the share of its output's power that a layer keeps, 0..1.
        method: as of `low_rank_factors`.
        calibration: batches; with them outputs on such inputs are kept instead of weights, and the
            bias makes up for the mean of what is lost.
        ignore: names or patterns ("head.*") of layers that stay.
        round_to: ranks are rounded up to a multiple of it.
        faster: asked for each layer, its pair and its input in the example.
        example_kwargs: further keyword arguments of the example call.

    Raises:
        TypeError, ValueError: a malformed request, before any work.
    """
    model = check_model(model)
    _check(rank, energy, method, round_to)
    check_ignored(model, ignore)
    example = example_call("factorize", example_inputs, example_kwargs)
    if example is None:
        raise ValueError("factorize: example_inputs: expected inputs of one call, got None")
    calls = [] if calibration is None else calls_of(calibration, example, len(tensors_of(example)))
    result = copy.deepcopy(model)
    modes = {name: module.training for name, module in result.named_modules()}
    result.eval()
    report = LowRankReport()
    inputs = _inputs(result, example)
    pairs: dict[int, nn.Module] = {}
    for name, layer in _layers(result).items():
        row, pair = _factor(
            result, name, layer, inputs.get(name), calls, rank, energy, method, round_to, ignore
        )
        if pair is not None and faster is not None and not faster(layer, pair, inputs[name]):
            row = LayerRank(name, row.full, row.full, reason=f"rank {row.rank} is not faster here")
            pair = None
        report.layers.append(row)
        if pair is not None:
            pairs[id(layer)] = pair
    for path, module in list(result.named_modules(remove_duplicate=False)):
        if id(module) in pairs and path:
            parent, _, leaf = path.rpartition(".")
            setattr(result.get_submodule(parent), leaf, pairs[id(module)])
    for name, module in result.named_modules():
        module.training = modes.get(name, modes[""])
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, result)]
    report.parameters = (counts[0], counts[1])
    setattr(result, ATTRIBUTE, report)
    return result


def low_rank_report(model: nn.Module) -> LowRankReport:
    """Return what `factorize` did to make this model.

    Raises:
        TypeError: the model was not returned by `factorize`.
    """
    found = getattr(model, ATTRIBUTE, None)
    if not isinstance(found, LowRankReport):
        raise TypeError(
            "low_rank_report: expected a model returned by factorize, "
            f"got {type(model).__module__}.{type(model).__qualname__}"
        )
    return found


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return layers that code calls; subclasses may have theirs read the weight."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    return {n: m for n, m in model.named_modules() if type(m) in kinds and n}


def _inputs(model: nn.Module, call: Call) -> dict[str, Tensor]:
    """Return the input of each layer that the call reaches."""
    return {name: x for name, (x, _) in _seen(model, tuple(_layers(model)), call).items()}


def _seen(model: nn.Module, names: Sequence[str], call: Call) -> dict[str, tuple[Tensor, Tensor]]:
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if args:
                seen[name] = (args[0].detach(), output.detach())

        return hook

    handles = [model.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    try:
        model(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _factor(
    model: nn.Module,
    name: str,
    layer: nn.Module,
    x: Tensor | None,
    calls: Sequence[Call],
    rank: int | float | None,
    energy: float | None,
    method: str,
    round_to: int,
    ignore: Sequence[str],
) -> tuple[LayerRank, nn.Module | None]:
    """Return the report's row and the pair, None where the layer stays."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    n, k = weight.shape[0], weight[0].numel()
    full = min(n, k)
    geometry = layer_geometry(layer)
    stays = ""
    if any(fnmatch(name, pattern) for pattern in ignore):
        stays = "ignored"
    elif x is None:
        stays = "the example never reaches it"
    elif geometry is None or getattr(layer, "groups", 1) != 1:
        stays = "groups, or padding that is not zeros"
    most = int(n * k / (MARGIN * (n + k)))
    if not stays and most < round_to:
        stays = f"no rank of at least {round_to} takes fewer multiplications"
    if stays or geometry is None:
        return LayerRank(name, full, full, reason=stays), None
    matrix = geometry.matrices(weight)[0].double()
    moments = _moments(model, name, geometry, weight, calls) if calls else None
    hessian = None if moments is None else moments.hessian
    if energy is not None:
        wanted = rank_of_energy(matrix, energy, hessian)
    else:
        assert rank is not None
        wanted = rank if isinstance(rank, int) else math.ceil(rank * full)
    wanted = min(-(-wanted // round_to) * round_to, full)
    if wanted > most:
        reason = f"rank {wanted} takes no fewer multiplications; at most {most} would"
        return LayerRank(name, full, full, reason=reason), None
    left, right = low_rank_factors(matrix, wanted, hessian=hessian, method=method)
    missed = matrix - left @ right
    power = _power(matrix, hessian)
    kept = 1 - _power(missed, hessian) / power if power > 0 else 1.0
    pair = _pair(layer, geometry, left, right)
    if moments is not None and isinstance(layer.bias, Tensor):
        second = pair[1].bias
        assert isinstance(second, Tensor)
        second += (missed @ moments.x_mean).to(second.dtype)
    return LayerRank(name, full, wanted, kept), pair


def _moments(
    model: nn.Module, name: str, geometry: Geometry, weight: Tensor, calls: Sequence[Call]
) -> Moments | None:
    gram = Gram(weight[0].numel(), 1)
    for call in calls:
        for x, y in _seen(model, (name,), call).values():
            for _, rows, _ in geometry.rows(x, y, weight):
                gram.add(rows, rows[:, :1])
    if not gram.count:
        return None
    layer = model.get_submodule(name)
    moments = gram.moments(is_centred=layer.bias is not None)
    return moments if moments.is_finite else None


def _power(matrix: Tensor, hessian: Tensor | None) -> float:
    return float((matrix.square() if hessian is None else (matrix @ hessian) * matrix).sum())


def _pair(layer: nn.Module, geometry: Geometry, left: Tensor, right: Tensor) -> nn.Sequential:
    """Return the layer as two, with the scale of the weight shared evenly."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rank = len(right)
    has_bias = isinstance(layer.bias, Tensor)
    first: nn.Module
    second: nn.Module
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=has_bias)
    else:
        assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
        kind = type(layer)
        first = kind(
            layer.in_channels,
            rank,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=False,
        )
        second = kind(rank, layer.out_channels, 1, bias=has_bias)
    first, second = first.to(weight.dtype), second.to(weight.dtype)
    for module, like in ((first, right), (second, left)):
        held = module.weight
        assert isinstance(held, nn.Parameter)
        if like is right:
            held.copy_(geometry.weight([right], held))
        else:
            held.copy_(left.view(held.shape))
        held.requires_grad_(weight.requires_grad)
    if has_bias:
        second.bias.copy_(layer.bias)  # type: ignore[arg-type, union-attr]
    return nn.Sequential(first, second).eval()


def _check(rank: object, energy: object, method: object, round_to: object) -> None:
    if (rank is None) == (energy is None):
        raise ValueError(
            f"factorize: rank, energy: expected one of them, got rank={rank!r}, energy={energy!r}"
        )
    is_int = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    is_share = isinstance(rank, float) and 0 < rank <= 1
    if rank is not None and not (is_int or is_share):
        raise ValueError(
            f"factorize: rank: expected an integer >= 1 or a share 0..1 as a float, got {rank!r}"
        )
    if energy is not None and not (isinstance(energy, (int, float)) and 0 < energy <= 1):
        raise ValueError(f"factorize: energy: expected 0 < energy <= 1, got {energy!r}")
    if method not in METHODS:
        raise ValueError(f"factorize: method: expected one of {list(METHODS)}, got {method!r}")
    if not isinstance(round_to, int) or round_to < 1:
        raise ValueError(f"factorize: round_to: expected an integer >= 1, got {round_to!r}")
