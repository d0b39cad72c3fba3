"""One walk through the captured graph: dense and pruned values side by side, layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fastinfer.compress.prune.geometry import Geometry
from fastinfer.compress.prune.layers import LayerCall, PrunableLayer
from fastinfer.compress.prune.resident import Peak
from fastinfer.compress.prune.residual import Stream, find_stream, mended
from fastinfer.compress.prune.solve import Grams, Solution
from fastinfer.graph.match import arguments, attribute

aten = torch.ops.aten

#: layer, its Grams (one for each group), whether a bias makes up for means -> one solution a group.
Solve = Callable[[PrunableLayer, list[Grams], bool], list[Solution]]
#: name, layers done, layers in all.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BiasPlace:
    """Where a layer's mean error goes: its bias, or the running mean of the BatchNorm behind."""

    target: str
    is_running_mean: bool


@dataclass
class Walk:
    """Values of all batches at one point of the graph.

    changed: the pruned net's tensors by get_attr target. Values that pruning did not change yet are
    held once. A value lives until its last user has run.
    """

    graph_module: fx.GraphModule
    layers: Sequence[PrunableLayer]
    solve: Solve
    peak: Peak = field(default_factory=Peak)
    use_streams: bool = True
    changed: dict[str, Tensor] = field(default_factory=dict)
    _dense: list[dict[fx.Node, Any]] = field(default_factory=list)
    _pruned: list[dict[fx.Node, Any]] = field(default_factory=list)

    def run(self, batches: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
        """Prune every layer that is to be; return the changed tensors by get_attr target.

        batches: the graph's inputs, of each batch.
        """
        graph = self.graph_module.graph
        first = {c.calls[0].node: c for c in self.layers if not c.dense and c.calls}
        later = self._later_grams(batches, list(first.values()))
        self._dense, self._pruned = [{} for _ in batches], [{} for _ in batches]
        last_use = _last_uses(graph)
        position = 0
        for node in graph.nodes:
            if node.op == "output":
                break
            if node.op == "placeholder":
                for env, values in zip(self._dense, batches, strict=True):
                    env[node] = values[position]
                position += 1
            elif node.op != "get_attr":
                self._step(node, first.get(node), later)
            for dead in last_use.get(node, ()):
                for env in (*self._dense, *self._pruned):
                    env.pop(dead, None)
            self.peak.look()
        return self.changed

    def _step(
        self, node: fx.Node, layer: PrunableLayer | None, later: dict[str, list[Grams]]
    ) -> None:
        for env in self._dense:
            env[node] = self._value(node, env, {})
        if layer is not None:
            self._prune(layer, later.get(layer.weight_target))
        self.peak.look()
        for env, pruned in zip(self._dense, self._pruned, strict=True):
            if self._differs(node, pruned):
                pruned[node] = self._value(node, {**env, **pruned}, self.changed)

    def _differs(self, node: fx.Node, pruned: dict[fx.Node, Any]) -> bool:
        return any(
            n in pruned or (n.op == "get_attr" and str(n.target) in self.changed)
            for n in node.all_input_nodes
        )

    def _value(self, node: fx.Node, env: dict[fx.Node, Any], changed: dict[str, Tensor]) -> Any:
        def of(n: fx.Node) -> Any:
            if n.op != "get_attr":
                return env[n]
            target = str(n.target)
            return changed[target] if target in changed else attribute(self.graph_module, target)

        args, kwargs = fx.map_arg(node.args, of), fx.map_arg(node.kwargs, of)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return self.graph_module.get_submodule(str(node.target))(*args, **kwargs)

    def _prune(self, layer: PrunableLayer, later: list[Grams] | None) -> None:
        call = layer.calls[0]
        place = bias_place(layer)
        stream = find_stream(call.node) if self.use_streams else None
        weight = attribute(self.graph_module, layer.weight_target)
        grams = later if later is not None else empty_grams(call.geometry, weight)
        for index, (env, pruned) in enumerate(zip(self._dense, self._pruned, strict=True)):
            x = pruned.get(call.source, env[call.source])
            y = env[call.node]
            if stream is not None and stream.other in pruned:
                y = self._mended(y, env, pruned, call.node, stream)
            if place is None and call.bias is not None:
                y = _without_bias(y, attribute(self.graph_module, str(call.bias.target)), call)
            add_rows(grams, call.geometry, x, y, weight, index, len(self._dense))
            self.peak.look()
        solutions = self.solve(layer, grams, place is not None)
        self.changed.update(changed_tensors(self.graph_module, layer, solutions))

    def _mended(
        self,
        y: Tensor,
        env: dict[fx.Node, Any],
        pruned: dict[fx.Node, Any],
        layer: fx.Node,
        stream: Stream,
    ) -> Tensor:
        error = env[stream.other] - pruned[stream.other]
        if not stream.chain:
            return y + error if error.shape == y.shape else y

        def run(value: Tensor) -> Tensor:
            inner = {**env, layer: value}
            for node in stream.chain:
                inner[node] = self._value(node, inner, {})
            result: Tensor = inner[stream.chain[-1]]
            return result

        return mended(y, error, run)

    def _later_grams(
        self, batches: Sequence[Sequence[Any]], layers: Sequence[PrunableLayer]
    ) -> dict[str, list[Grams]]:
        """Return the Grams of the calls after the first, of layers that are called several times.

        Their inputs follow from the layer itself, so they are the dense net's.
        """
        shared = {c.node: layer for layer in layers for c in layer.calls[1:]}
        grams: dict[str, list[Grams]] = {}
        if not shared:
            return grams
        last_use = _last_uses(self.graph_module.graph)
        for index, values in enumerate(batches):
            env: dict[fx.Node, Any] = {}
            inputs = iter(values)
            for node in self.graph_module.graph.nodes:
                if node.op == "output":
                    break
                if node.op == "get_attr":
                    continue
                env[node] = next(inputs) if node.op == "placeholder" else self._value(node, env, {})
                if node in shared:
                    layer = shared[node]
                    call = next(c for c in layer.calls if c.node is node)
                    weight = attribute(self.graph_module, layer.weight_target)
                    if layer.weight_target not in grams:
                        grams[layer.weight_target] = empty_grams(call.geometry, weight)
                    y = env[node]
                    if bias_place(layer) is None and call.bias is not None:
                        y = _without_bias(
                            y, attribute(self.graph_module, str(call.bias.target)), call
                        )
                    found = grams[layer.weight_target]
                    x = env[call.source]
                    add_rows(found, call.geometry, x, y, weight, index, len(batches))
                for dead in last_use.get(node, ()):
                    env.pop(dead, None)
        return grams


def changed_tensors(
    graph_module: fx.GraphModule, layer: PrunableLayer, solutions: Sequence[Solution]
) -> dict[str, Tensor]:
    """Return what a layer's solutions (one a group) make of its tensors, by get_attr target."""
    if all(s.is_dense for s in solutions):
        return {}
    weight = attribute(graph_module, layer.weight_target)
    matrices = [s.matrix for s in solutions]
    changed = {layer.weight_target: layer.calls[0].geometry.weight(matrices, weight)}
    place = bias_place(layer)
    if place is not None and all(s.bias is not None for s in solutions):
        bias = torch.cat([s.bias for s in solutions if s.bias is not None])
        old = attribute(graph_module, place.target)
        # BatchNorm takes away what the bias would have added.
        moved = old.double() - bias if place.is_running_mean else bias
        changed[place.target] = moved.to(old.dtype)
    return changed


def empty_grams(geometry: Geometry, weight: Tensor) -> list[Grams]:
    """Return Grams without a row for each group of a weight."""
    return [Grams.empty(m.shape[1], m.shape[0]) for m in geometry.matrices(weight)]


#: Of so many batches, or rows of one batch where there are fewer, one is held out.
HELD_EVERY = 4


def add_rows(
    grams: list[Grams],
    geometry: Geometry,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    index: int,
    batches: int,
) -> None:
    """Add batch number `index` of `batches` to a layer's Grams; a quarter of all is held out."""
    by_batch = batches >= HELD_EVERY
    for group, rows, wanted in geometry.rows(x, y, weight):
        if by_batch:
            is_held = index % HELD_EVERY == HELD_EVERY - 1
            (grams[group].held if is_held else grams[group].fit).add(rows, wanted)
            continue
        cut = len(rows) - len(rows) // HELD_EVERY
        grams[group].fit.add(rows[:cut], wanted[:cut])
        grams[group].held.add(rows[cut:], wanted[cut:])


def bias_place(layer: PrunableLayer) -> BiasPlace | None:
    """Return where the layer's mean error can go; None where it has no such place of its own."""
    nodes = {call.node for call in layer.calls}
    bias = layer.calls[0].bias
    if bias is not None:
        return BiasPlace(str(bias.target), False) if set(bias.users) <= nodes else None
    if len(layer.calls) > 1 or len(layer.calls[0].node.users) != 1:
        return None
    (user,) = layer.calls[0].node.users
    if user.target is not aten.batch_norm.default or user.args[0] is not layer.calls[0].node:
        return None
    values = arguments(user)
    mean = values["running_mean"]
    if values["training"] or not isinstance(mean, fx.Node) or mean.op != "get_attr":
        return None
    return BiasPlace(str(mean.target), True) if set(mean.users) == {user} else None


def _without_bias(y: Tensor, bias: Tensor, call: LayerCall) -> Tensor:
    if call.geometry.kind != "conv":
        return y - bias
    return y - bias.view(-1, *[1] * (y.dim() - 2))


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Return for each node the values that no later one reads."""
    uses: dict[fx.Node, list[fx.Node]] = {}
    kept = {n for node in graph.nodes if node.op == "output" for n in node.all_input_nodes}
    seen: set[fx.Node] = set(kept)
    for node in reversed(graph.nodes):
        for value in (*node.all_input_nodes, node):
            if value not in seen and value.op != "get_attr":
                seen.add(value)
                uses.setdefault(node, []).append(value)
    return uses
