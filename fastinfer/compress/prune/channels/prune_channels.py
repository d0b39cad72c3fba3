"""prune_channels: a physically smaller model, by the channels that matter least."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from torch import Tensor, nn

from fastinfer.compress.prune.calibration import calls_of
from fastinfer.compress.prune.channels.allocate import (
    ALLOCATIONS,
    Choice,
    choose_global,
    choose_uniform,
    removed_by_group,
)
from fastinfer.compress.prune.channels.compensate import compensate as refit
from fastinfer.compress.prune.channels.groups import (
    ChannelGroup,
    Refusal,
    Structure,
    count_multiplications,
    count_parameters,
    find_groups,
    removed_indices,
    shapes_after,
)
from fastinfer.compress.prune.channels.importance import Loss, in_eval_mode, magnitude, taylor
from fastinfer.compress.prune.channels.report import ATTRIBUTE, ChannelReport, GroupPruning
from fastinfer.compress.prune.channels.screen import Trial, attributes_after, failing, usable
from fastinfer.compress.prune.channels.surgery import without
from fastinfer.compress.prune.request import check_ignored, check_model
from fastinfer.graph.capture import capture
from fastinfer.graph.errors import CaptureError
from fastinfer.types.call import Call, tensors_of
from fastinfer.types.example import example_call

IMPORTANCES = ("taylor", "magnitude")
SCOPES = ("all", "mid")


def prune_channels(
    model: nn.Module,
    example_inputs: Any,
    *,
    sparsity: float,
    importance: str = "taylor",
    calibration: Iterable[Any] | None = None,
    loss: Loss | None = None,
    ignore: Sequence[str] = (),
    round_to: int = 16,
    scope: str = "all",
    allocation: str = "global",
    max_sparsity: float = 0.9,
    compensate: bool | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a copy of the model with fewer channels, of the model's own class, float, trainable.

    Channels that only make sense together (of layers that are added, gated, joined, normalized)
    go together; `channel_report` of the result says which went and which stayed, and why. On the
    example the result equals the model with the removed channels at zero: that is checked. The
    model is not touched.

    Args:
        model: any nn.Module that torch.export captures; it is pruned as it is in eval mode.
        example_inputs: a tensor, a tuple or list of positional arguments, or a dict of keyword
            arguments.
        sparsity: 0..1; the share of the model's parameters that goes, or with allocation="uniform"
            the share of each group's channels.
        importance: "taylor", the first-order change of the loss (without one, of the output) on the
            calibration data, or "magnitude", by squares of weights.
        calibration: batches as for `convert`. The example alone serves where there are none.
        loss: (output, batch) -> scalar tensor, for "taylor"; batch as it came from calibration.
        ignore: names or patterns ("head.*") of layers whose outputs keep their channels.
        round_to: kept widths are a multiple of it, and of 64 where a layer has 256 or more.
        scope: "mid" leaves alone the sums of several layers (residual streams).
        allocation: "global" ranks the channels of all groups, "uniform" takes the same share of
            each.
        max_sparsity: the largest share of a group's channels that "global" removes, 0..1.
        compensate: refit layers that read fewer channels to their outputs before. None: where
            there is calibration.
        example_kwargs: further keyword arguments of the example call.

    Raises:
        TypeError, ValueError: a malformed request, a model that is not captured, or a sparsity
            that cannot be reached (the text says what can).
    """
    model = check_model(model)
    _check(sparsity, importance, loss, round_to, scope, allocation, max_sparsity)
    _check_data(calibration, compensate, ignore)
    check_ignored(model, ignore)
    example = example_call("prune_channels", example_inputs, example_kwargs)
    if example is None:
        raise ValueError("prune_channels: example_inputs: expected inputs of one call, got None")
    shared = in_eval_mode(model)
    batches = None if calibration is None else list(calibration)
    n_inputs = len(tensors_of(example))
    calls = calls_of(batches, example, n_inputs)

    trial = _trial(shared, example)
    structure = trial.structure
    wanted, refused = _wanted(structure, ignore, scope)
    groups, ways, failed = usable(trial, wanted)
    refused += failed
    while True:
        scores = _scores(shared, groups, structure, importance, batches, example, n_inputs, loss)
        if allocation == "uniform":
            choices = choose_uniform(groups, scores, sparsity, round_to)
        else:
            choices = choose_global(structure, groups, scores, sparsity, round_to, max_sparsity)
        removed = removed_by_group(choices)
        reason = trial.difference(removed, ways) if removed else ""
        if not reason:
            break
        bad = dict(failing(trial, removed, ways))
        if not bad:
            raise ValueError(
                f"prune_channels: model: expected to find channels that can go: {reason}"
            )
        refused += [Refusal(g.name, g.channels * g.width, text) for g, text in bad.items()]
        groups = [group for group in groups if group not in bad]
    indices = removed_indices(removed)
    result = without(model, indices, attributes_after(model, removed, ways))
    errors: dict[str, float] = {}
    if removed and (compensate or (compensate is None and batches is not None)):
        errors = refit(shared, in_eval_mode(result), indices, calls)
    shapes = shapes_after(structure.shapes, indices)
    report = ChannelReport(
        importance,
        tuple(_row(choice) for choice in choices),
        tuple(refused),
        (count_parameters(structure, structure.shapes), count_parameters(structure, shapes)),
        (
            count_multiplications(structure, structure.shapes),
            count_multiplications(structure, shapes),
        ),
        errors,
        _notes(model, choices, batches, importance),
    )
    setattr(result, ATTRIBUTE, report)
    return result


def _trial(model: nn.Module, example: Call) -> Trial:
    try:
        program = capture(model, *example, freedoms=("no size",))
    except CaptureError as error:
        raise ValueError(
            f"prune_channels: model: expected one that torch.export captures: {error}"
        ) from error
    assert program.call is not None
    parameters = dict(model.named_parameters())
    structure = find_groups(
        program.graph_module,
        {**parameters, **dict(model.named_buffers())},
        frozenset(parameters),
    )
    return Trial(model, program.graph_module, program.call, structure, example)


def _wanted(
    structure: Structure, ignore: Sequence[str], scope: str
) -> tuple[list[ChannelGroup], list[Refusal]]:
    groups, refused = [], list(structure.refused)
    for group in structure.groups:
        layers = _layers(group)
        hit = next((n for n in layers if any(fnmatch(n, pattern) for pattern in ignore)), None)
        if hit is not None:
            reason = "ignored" if hit == group.name else f"goes with {hit}, which is ignored"
        elif group.residual and scope == "mid":
            reason = "a sum of several layers' outputs, which scope='mid' leaves"
        else:
            groups.append(group)
            continue
        refused.append(Refusal(group.name, group.channels * group.width, reason))
    return groups, refused


def _layers(group: ChannelGroup) -> tuple[str, ...]:
    made = (m.name.rpartition(".")[0] or m.name for m in group.members if m.role == "makes")
    return tuple(dict.fromkeys(made))


def _scores(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    structure: Structure,
    importance: str,
    batches: Sequence[Any] | None,
    example: Call,
    n_inputs: int,
    loss: Loss | None,
) -> list[Tensor]:
    if importance == "magnitude":
        tensors = dict(model.named_parameters())
        matrices = {name for name, tensor in tensors.items() if tensor.dim() > 1}
        scales = {name for name in tensors if name.endswith("weight")}
        return magnitude(groups, tensors, frozenset(matrices | scales))
    if batches is None:
        args, kwargs = example
        batches = [kwargs if not args else args if not kwargs else _merged(model, example)]
    return taylor(model, groups, batches, n_inputs, loss)


def _merged(model: nn.Module, example: Call) -> dict[str, Any]:
    """Return the example as keyword arguments, the form of a batch that has both kinds."""
    from fastinfer.graph.domain import model_signature

    return dict(model_signature(model).bind(*example[0], **example[1]).arguments)


def _row(choice: Choice) -> GroupPruning:
    group = choice.group
    kept = group.channels - len(choice.removed)
    return GroupPruning(
        group.name, _layers(group), group.channels, kept, group.width, choice.importance_kept
    )


def _notes(
    model: nn.Module, choices: Sequence[Choice], batches: object, importance: str
) -> tuple[str, ...]:
    notes = []
    if any(module.training for module in model.modules()):
        notes.append("the model was in train mode; it was pruned as it is in eval mode")
    if batches is None and importance == "taylor":
        notes.append("importance is that on the example alone: pass calibration=")
    if any(choice.group.renormalized and choice.removed for choice in choices):
        notes.append(
            "norms take statistics of fewer channels now: the outputs differ from those of the "
            "model with these channels at zero; fine-tune"
        )
    return tuple(notes)


def _check(
    sparsity: object,
    importance: object,
    loss: object,
    round_to: object,
    scope: object,
    allocation: object,
    max_sparsity: object,
) -> None:
    for name, value in (("sparsity", sparsity), ("max_sparsity", max_sparsity)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not (0 <= value < 1) or not math.isfinite(value):  # type: ignore[operator, arg-type]
            raise ValueError(f"prune_channels: {name}: expected 0 <= {name} < 1, got {value!r}")
    for name, value, allowed in (
        ("importance", importance, IMPORTANCES),
        ("scope", scope, SCOPES),
        ("allocation", allocation, ALLOCATIONS),
    ):
        if value not in allowed:
            raise ValueError(
                f"prune_channels: {name}: expected one of {list(allowed)}, got {value!r}"
            )
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise ValueError(f"prune_channels: round_to: expected an integer >= 1, got {round_to!r}")
    if loss is not None and not callable(loss):
        raise TypeError(f"prune_channels: loss: expected a function, got {type(loss).__name__}")
    if loss is not None and importance != "taylor":
        raise ValueError("prune_channels: loss: it is for importance='taylor'; leave it out")


def _check_data(calibration: object, compensate: object, ignore: object) -> None:
    is_batches = isinstance(calibration, Iterable) and not isinstance(
        calibration, (Tensor, str, bytes, Mapping)
    )
    if calibration is not None and not is_batches:
        raise TypeError(
            "prune_channels: calibration: expected an iterable of batches, got "
            f"{type(calibration).__name__}; put one batch in a list"
        )
    if compensate not in (None, True, False):
        raise TypeError(
            f"prune_channels: compensate: expected True, False or None, got {compensate!r}"
        )
    if isinstance(ignore, str) or not isinstance(ignore, Sequence):
        raise TypeError(f"prune_channels: ignore: expected a sequence of names, got {ignore!r}")
