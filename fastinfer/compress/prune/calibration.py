"""Calibration data for pruning: the graph's inputs, of as many batches as memory allows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.prune.report import PruningReport
from fastinfer.compress.quantize.batches import check_finite, read_calls
from fastinfer.program import Program
from fastinfer.types.call import Call

#: Bytes of activations that a walk may hold at once, of all batches, dense and pruned.
ACTIVATION_BYTES = 2 * 2**30


def calls_of(calibration: Iterable[Any] | None, example: Call, n_inputs: int) -> list[Call]:
    """Return the calls to calibrate on: the calibration batches, or the example alone.

    Raises:
        TypeError, ValueError: as `read_calls`; and NaN or infinity in a batch (named).
    """
    if calibration is None:
        return [example]
    calls = list(read_calls(calibration, n_inputs))
    for index, (args, kwargs) in enumerate(calls):
        check_finite((*args, *kwargs.values()), index)
    return calls


def graph_batches(
    program: Program,
    calls: list[Call],
    pruned: Collection[fx.Node],
    report: PruningReport,
) -> list[tuple[Any, ...]]:
    """Return the graph's inputs of the calls that the graph takes and memory allows.

    pruned: the nodes of layers that will be; values behind them are held twice.
    """
    spec = program.call
    assert spec is not None
    taken = []
    for args, kwargs in calls:
        try:
            flat = spec.flatten(args, kwargs)
        except TypeError as error:
            raise ValueError(
                f"prune: calibration: a batch does not fit the model: {error}"
            ) from None
        if flat is not None and spec.accepts([tuple(t.shape) for t in flat]):
            taken.append(flat)
    if len(taken) < len(calls):
        report.note(
            f"{len(calls) - len(taken)} of {len(calls)} batches have sizes that the "
            "captured graph does not take; they were left out"
        )
    kept: list[tuple[Any, ...]] = []
    used = 0
    known: dict[Any, int] = {}
    for flat in taken:
        shapes = tuple(tuple(t.shape) for t in flat)
        if shapes not in known:
            known[shapes] = live_bytes(program.graph_module, flat, pruned)
        used += known[shapes]
        if kept and used > ACTIVATION_BYTES:
            report.note(
                f"{len(kept)} of {len(taken)} batches were used: more would take over "
                f"{ACTIVATION_BYTES / 2**30:.1f} GB of activations"
            )
            break
        kept.append(flat)
    return kept


@torch.no_grad()
def live_bytes(
    graph_module: fx.GraphModule, inputs: tuple[Any, ...], pruned: Collection[fx.Node] = ()
) -> int:
    """Return the most bytes of values that a walk holds at once of one batch.

    pruned: nodes whose value, and all that follow from it, are held twice.
    """
    counter = _Counter(graph_module, pruned)
    counter.run(*inputs)
    return counter.highest


class _Counter(fx.Interpreter):
    """Interprets a graph, adding up the storages of live values."""

    def __init__(self, graph_module: fx.GraphModule, pruned: Collection[fx.Node]) -> None:
        super().__init__(graph_module)
        self.highest = 0
        self._twice = set(pruned)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if any(source in self._twice for source in n.all_input_nodes):
            self._twice.add(n)
        storages: dict[tuple[int, bool], int] = {}
        for node, held in (*self.env.items(), (n, value)):
            if isinstance(held, Tensor) and node.op != "get_attr":
                storage = held.untyped_storage()
                for is_second in (False, True) if node in self._twice else (False,):
                    storages[storage.data_ptr(), is_second] = storage.nbytes()
        self.highest = max(self.highest, sum(storages.values()))
        return value
