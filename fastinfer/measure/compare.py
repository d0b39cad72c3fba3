"""`compare`: a converted model against its reference, outputs and layers, over batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastinfer.measure.accuracy import ErrorSums, top1_agreement
from fastinfer.measure.call import batch_size, batches, evaluating, named_tensors
from fastinfer.measure.call import without_label as unlabelled
from fastinfer.measure.layers import LayerError, LayerErrors
from fastinfer.report_text import format_table
from fastinfer.types.call import call


@dataclass(frozen=True)
class TensorError:
    """Error of one tensor: SQNR in dB, cosine, largest absolute difference."""

    name: str
    sqnr_db: float
    cosine: float
    max_abs: float
    reference_name: str = ""
    reason: str = ""

    @classmethod
    def from_sums(cls, name: str, sums: ErrorSums, reference_name: str = "") -> TensorError:
        """Return the figures of summed errors."""
        return cls(name, sums.sqnr_db, sums.cosine, sums.max_abs, reference_name)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, over `samples` samples.

    `outputs` has every tensor of the output; `layers` the layers that could be compared;
    `skipped` the others, each with its reason. `top1` is the share of rows whose largest logit is
    the same (None when no output is a matrix of logits).
    """

    outputs: tuple[TensorError, ...]
    layers: tuple[TensorError, ...]
    skipped: tuple[tuple[str, str], ...]
    samples: int
    top1: float | None = None

    @property
    def sqnr_db(self) -> float:
        """The smallest SQNR of the outputs in dB."""
        return min((row.sqnr_db for row in self.outputs), default=math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-able data; infinite figures become None."""
        return {
            "samples": self.samples,
            "top1": self.top1,
            "outputs": [_plain(row) for row in self.outputs],
            "layers": [_plain(row) for row in self.layers],
            "skipped": dict(self.skipped),
        }

    def __str__(self) -> str:
        """Return a table for people."""
        headers = ["tensor", "SQNR dB", "cosine", "max |error|"]
        parts = [
            format_table(
                headers, [_cells(r) for r in self.outputs], title=f"{self.samples} samples"
            )
        ]
        if self.top1 is not None:
            parts.append(f"top-1 agreement {100 * self.top1:.1f} % of {self.samples} samples")
        if self.layers:
            rows = [[*_cells(row), row.reference_name] for row in self.layers]
            parts.append(format_table(["layer", *headers[1:], "compared with"], rows))
        if self.skipped:
            lines = [f"  {name}: {reason}" for name, reason in self.skipped]
            parts.append("\n".join([f"Layers not compared ({len(lines)}):", *lines]))
        return "\n\n".join(parts)


def _cells(row: TensorError) -> list[str]:
    return [row.name, f"{row.sqnr_db:.1f}", f"{row.cosine:.5f}", f"{row.max_abs:.4g}"]


def _plain(row: TensorError) -> dict[str, Any]:
    return {
        "name": row.name,
        "sqnr_db": row.sqnr_db if math.isfinite(row.sqnr_db) else None,
        "cosine": row.cosine,
        "max_abs": row.max_abs,
        "reference_name": row.reference_name,
    }


def compare(
    reference: Callable[..., Any], fast: Callable[..., Any], inputs: Any, *, layers: bool = True
) -> Comparison:
    """Return the errors of a converted model's outputs and layers against its reference.

    Both run in eval mode under inference mode and get their mode back.

    Args:
        reference: the float model.
        fast: what `convert` made of it, or any model with the same outputs.
        inputs: one batch (a tensor, a tuple of positional or a dict of keyword arguments), or any
            iterable of batches, (input, label) pairs included.
        layers: compare layer by layer too, where both are modules.

    Raises:
        TypeError: inputs is neither a batch nor an iterable.
        ValueError: inputs is empty, or an output's structure or shape differs.
    """
    watch = None
    if layers and isinstance(reference, nn.Module) and isinstance(fast, nn.Module):
        watch = LayerErrors(reference, fast)
    sums: dict[str, ErrorSums] = defaultdict(ErrorSums)
    agreed = rows = samples = 0.0
    with evaluating(reference, fast), torch.inference_mode():
        for batch in batches(inputs):
            wanted, got = _both(reference, fast, unlabelled(reference, batch), watch)
            samples += batch_size(batch)
            for name, want in wanted.items():
                sums[name].add(want, got[name])
            logits = next((w for w in wanted.values() if _is_logits(w)), None)
            if logits is not None and len(wanted) == 1:
                share, count = top1_agreement(logits, next(iter(got.values())))
                agreed, rows = agreed + share * count, rows + count
    if not samples:
        raise ValueError("compare: expected at least one batch of inputs, got none")
    found: list[LayerError] = watch.rows() if watch is not None else []
    return Comparison(
        outputs=tuple(TensorError.from_sums(name, total) for name, total in sums.items()),
        layers=tuple(
            TensorError.from_sums(row.name, row.errors, row.reference_name)
            for row in found
            if row.errors is not None
        ),
        skipped=tuple((row.name, row.reason) for row in found if row.errors is None),
        samples=int(samples),
        top1=agreed / rows if rows else None,
    )


def _both(
    reference: Callable[..., Any], fast: Callable[..., Any], batch: Any, watch: LayerErrors | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Run both, the converted one first: the reference's layers are compared as they appear."""
    with ExitStack() as stack:
        if watch is not None:
            stack.enter_context(watch.watching_fast())
        got = named_tensors(call(fast, batch))
    with ExitStack() as stack:
        if watch is not None:
            stack.enter_context(watch.watching_reference())
        wanted = named_tensors(call(reference, batch))
    if wanted.keys() != got.keys():
        raise ValueError(
            f"compare: expected outputs {sorted(wanted)} like the reference's, got {sorted(got)}"
        )
    if not wanted:
        raise ValueError("compare: expected a model that returns tensors, got none")
    return wanted, got


def _is_logits(x: torch.Tensor) -> bool:
    return x.dim() == 2 and x.shape[1] > 1 and x.shape[0] > 0 and x.is_floating_point()
