"""Float layers that store and multiply only the weights that are not zero."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor, nn

from fastinfer.nn.weight_only import BoundConv, Compute
from fastinfer.types.sparse_float import SparseFloatWeight

#: The tensors of a SparseFloatWeight, which are a layer's buffers.
PARTS = ("values", "places", "starts")


def _pair(value: int | tuple[int, ...], fill: int) -> list[int]:
    """Return (height, width) of a convolution's argument; fill: the height of a 1-D one."""
    return [fill, value] if isinstance(value, int) else list(value)


class SparseFloat(nn.Module):
    """A linear layer or convolution on a sparse float32 weight; exact but for the order of sums.

    Where the kernels cannot serve an input (another dtype or device) the dense weight is made and
    used for the call.

    Args:
        weight: what is not zero of [N, K], [N, C / groups, k] or [N, C / groups, kh, kw].
        bias: [N] float32 or None.
        compute: linear or convolution with its geometry bound.
        activation: what follows, or None. clamp: bounds of layer(x) + residual, before it.
    """

    values: Tensor
    places: Tensor
    starts: Tensor

    def __init__(
        self,
        weight: SparseFloatWeight,
        bias: Tensor | None,
        compute: Compute,
        activation: Callable[[Tensor], Tensor] | None = None,
        clamp: tuple[float, float] = (-inf, inf),
    ) -> None:
        super().__init__()
        weight.check()
        for name in PARTS:
            self.register_buffer(name, getattr(weight, name))
        frozen = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.register_parameter("bias", frozen)
        self.shape, self.groups, self.clamp = weight.shape, weight.groups, clamp
        self._compute, self._activation = compute, activation
        self._dims = compute.dims if isinstance(compute, BoundConv) else 0
        self._arguments = self._geometry(compute)
        ops = torch.ops.fastinfer
        op = ops.sparse_float_conv2d if self._dims else ops.sparse_float_linear
        self._op = op.default

    def _geometry(self, compute: Compute) -> tuple[object, ...]:
        """Return the op's arguments between the bias and the bounds."""
        shape = list(self.shape)
        if not isinstance(compute, BoundConv):
            return (shape,)
        if self._dims == 1:  # images of one row
            shape.insert(2, 1)
        given = compute.geometry
        fills = {"stride": 1, "padding": 0, "dilation": 1}
        return (shape, *(_pair(given[name], fill) for name, fill in fills.items()), self.groups)

    @property
    def weight(self) -> Tensor:
        """The dense weight, made at each access."""
        parts = (self.values, self.places, self.starts)
        return SparseFloatWeight(*parts, self.shape, self.groups).dense()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return activation(layer(x) + residual)."""
        # Not as attributes: nn.Module's look-up costs 1 us each.
        parts = tuple(self._buffers[name] for name in PARTS)
        if self._is_served(x, parts[0]):
            y = self._serve(x, (*parts, self._parameters["bias"]), residual)
        else:
            y = self._fall_back(x, residual)
        return y if self._activation is None else self._activation(y)

    def _is_served(self, x: Tensor, values: Tensor) -> bool:
        is_float = x.dtype == values.dtype == torch.float32
        has_batch = not self._dims or x.dim() == self._dims + 2
        return is_float and has_batch and x.is_cpu and values.is_cpu

    def _serve(
        self, x: Tensor, parts: tuple[Tensor | None, ...], residual: Tensor | None
    ) -> Tensor:
        if self._dims != 1:
            return self._op(x, *parts, residual, *self._arguments, *self.clamp)
        row = None if residual is None else residual.unsqueeze(2)
        return self._op(x.unsqueeze(2), *parts, row, *self._arguments, *self.clamp).squeeze(2)

    def _fall_back(self, x: Tensor, residual: Tensor | None) -> Tensor:
        y = self._compute(x, self.weight, self.bias)
        return torch.clamp(y if residual is None else y + residual, *self.clamp)

    def extra_repr(self) -> str:
        """Describe the weight."""
        kept = self.values.numel() / max(1, torch.Size(self.shape).numel())
        return f"weight={list(self.shape)} float32, {kept:.1%} of it not zero"
