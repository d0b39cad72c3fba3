"""How much each channel of a group matters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.compress.prune.channels.groups import ChannelGroup, Member
from fastinfer.compress.quantize.batches import batch_call

#: (output of the model, the batch as it was given) -> scalar.
Loss = Callable[[Any, Any], Tensor]

#: Random projections of the output, of all batches together or one of each, where there is no loss.
PROBES = 4


def magnitude(
    groups: Sequence[ChannelGroup], tensors: Mapping[str, Tensor], weights: frozenset[str]
) -> list[Tensor]:
    """Return for each group the importance of its channels: [channels] float32.

    It is the sum of squares of each member's slices, divided by the member's mean: every layer
    counts the same, and a channel that many layers share counts as often.

    Args:
        groups: of a model with these tensors by name.
        weights: the tensors that count: no statistics, and no biases.
    """
    result = []
    for group in groups:
        total = torch.zeros(group.channels)
        for member in group.members:
            if member.name not in weights:
                continue
            squares = _by_channel(tensors[member.name].detach().float().square(), member)
            mean = squares.mean()
            if float(mean) > 0:
                total += squares / mean
        result.append(total)
    return result


def taylor(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    batches: Sequence[Any],
    n_inputs: int,
    loss: Loss | None,
) -> list[Tensor]:
    """Return for each group the importance of its channels: [channels] float32.

    It is the mean over batches of the square of the first-order change of the loss when the channel
    becomes zero: (sum of gradient x weight)^2 over the columns that read it. Without a loss it is
    that of the output: random signs project it to a number, whose squared change is in the mean the
    sum of squared changes of all outputs.

    Args:
        model: in eval mode; neither its values nor its gradients change.
        batches: as of calibration.
        n_inputs: how many tensors the model takes.

    Raises:
        ValueError: no batch, or the loss is no finite scalar.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning (2019), section 3.
    """
    read = [[m for m in g.members if m.role == "reads"] for g in groups]
    names = {m.name for members in read for m in members}
    state = {k: v.detach() for k, v in (*model.named_parameters(), *model.named_buffers())}
    leaves = {name: state[name].clone().requires_grad_() for name in sorted(names)}
    totals = [torch.zeros(g.channels) for g in groups]
    generator = torch.Generator().manual_seed(0)
    count = 0
    for batch in batches:
        args, kwargs = batch_call(batch, n_inputs)
        with torch.enable_grad():
            output = torch.func.functional_call(model, {**state, **leaves}, args, kwargs)
            scalars = (
                [_checked(loss(output, batch))]
                if loss is not None
                else _probes(output, generator, -(-PROBES // len(batches)))
            )
        for index, scalar in enumerate(scalars):
            gradients = torch.autograd.grad(
                scalar,
                list(leaves.values()),
                retain_graph=index + 1 < len(scalars),
                allow_unused=True,
            )
            products = {
                name: leaf.detach() * gradient
                for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
                if gradient is not None
            }
            for total, members in zip(totals, read, strict=True):
                change = torch.zeros_like(total)
                for member in members:
                    if member.name in products:
                        change += _by_channel(products[member.name], member).float()
                total += change.square() / len(scalars)
        count += 1
    if not count:
        raise ValueError("prune_channels: calibration: expected at least one batch, got none")
    return [total / count for total in totals]


def _checked(value: Any) -> Tensor:
    if not (isinstance(value, Tensor) and value.numel() == 1 and bool(torch.isfinite(value).all())):
        shown = value if not isinstance(value, Tensor) or value.numel() == 1 else list(value.shape)
        raise ValueError(f"prune_channels: loss: expected a finite scalar tensor, got {shown}")
    return value.reshape(())


def _probes(output: Any, generator: torch.Generator, count: int) -> list[Tensor]:
    """Return projections of the output on random signs, scaled by the size of one sample."""
    floats = [
        leaf
        for leaf in pytree.tree_leaves(output)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.requires_grad
    ]
    if not floats:
        raise ValueError(
            "prune_channels: importance='taylor': expected an output with a gradient, got none; "
            "use importance='magnitude'"
        )
    results = []
    for _ in range(count):
        parts = []
        for leaf in floats:
            signs = torch.randint(0, 2, leaf.shape, generator=generator).to(leaf.dtype) * 2 - 1
            parts.append((leaf * signs.to(leaf.device)).sum() / leaf.numel() ** 0.5)
        results.append(torch.stack(parts).sum())
    return results


def _by_channel(values: Tensor, member: Member) -> Tensor:
    """Return the sum of values over the slices of each channel: [channels]."""
    others = [axis for axis in range(values.dim()) if axis != member.axis]
    line = values.sum(others) if others else values
    return line[torch.from_numpy(member.table())].sum(1).cpu()


def in_eval_mode(model: nn.Module) -> nn.Module:
    """Return the model, or a copy of it in eval mode that shares all tensors."""
    if not any(module.training for module in model.modules()):
        return model
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
