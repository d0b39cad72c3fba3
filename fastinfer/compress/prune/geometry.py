"""How a layer's weight is a matrix, and its inputs rows that meet it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Elements of input rows made at a time: 64 MB of float32.
CHUNK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Geometry:
    """A linear layer, or a convolution over one or two axes.

    kind: "linear", "transposed" (a weight [K, N], as of a matrix product) or "conv". stride,
    padding (before and after each axis) and dilation are those of (height, width); a convolution
    over one axis has a height of 1.
    """

    kind: str
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def matrices(self, weight: Tensor) -> list[Tensor]:
        """Return a matrix [N / groups, K] for each group, K in the order (kh, kw, c)."""
        if self.kind != "conv":
            return [weight.t() if self.kind == "transposed" else weight]
        return list(weight.movedim(1, -1).flatten(1).chunk(self.groups))

    def weight(self, matrices: list[Tensor], like: Tensor) -> Tensor:
        """Return the weight that has these matrices, in the shape and dtype of like."""
        rows = torch.cat(matrices).to(like.dtype)
        if self.kind != "conv":
            return rows.t().contiguous() if self.kind == "transposed" else rows
        n, c, *kernel = like.shape
        return rows.view(n, *kernel, c).movedim(-1, 1).contiguous()

    def rows(self, x: Tensor, y: Tensor, weight: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (group, inputs [P, K], outputs [P, N / groups]) in chunks.

        x, y: the layer's input and output, or what it should answer; weight gives the kernel.
        """
        if self.kind != "conv":
            k = x.shape[-1]
            flat_x, flat_y = x.reshape(-1, k), y.reshape(-1, y.shape[-1])
            step = max(1, CHUNK_ELEMENTS // k)
            for start in range(0, len(flat_x), step):
                yield 0, flat_x[start : start + step], flat_y[start : start + step]
            return
        if weight.dim() == 3:
            x, y, weight = x.unsqueeze(-2), y.unsqueeze(-2), weight.unsqueeze(-2)
        yield from self._patches(x, y, (weight.shape[2], weight.shape[3]))

    def _patches(
        self, x: Tensor, y: Tensor, kernel: tuple[int, int]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        (top, bottom), (left, right) = self.padding
        (kh, kw), sh, dh = kernel, self.stride[0], self.dilation[0]
        out_h, out_w = y.shape[2], y.shape[3]
        xs, ys = x.chunk(self.groups, 1), y.chunk(self.groups, 1)
        k = xs[0].shape[1] * kh * kw
        # Whole samples, or bands of one sample's output rows where that is much already.
        bands = max(1, min(out_h, CHUNK_ELEMENTS // max(1, k * out_w)))
        samples = max(1, CHUNK_ELEMENTS // max(1, k * out_w * out_h))
        for group, (xg, yg) in enumerate(zip(xs, ys, strict=True)):
            for s in range(0, len(x), samples):
                padded = functional.pad(xg[s : s + samples], (left, right, top, bottom))
                for r in range(0, out_h, bands):
                    last = min(r + bands, out_h)
                    band = padded[:, :, r * sh : (last - 1) * sh + (kh - 1) * dh + 1]
                    patches = _unfolded(band, kernel, self.dilation, self.stride)
                    wanted = yg[s : s + samples, :, r:last].movedim(1, -1)
                    yield group, patches, wanted.reshape(-1, yg.shape[1])


def _unfolded(
    x: Tensor, kernel: tuple[int, int], dilation: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Return the patches [B * H * W, kh * kw * C] under each output of a padded input."""
    if kernel == (1, 1):
        return x[:, :, :: stride[0], :: stride[1]].movedim(1, -1).reshape(-1, x.shape[1])
    b, c = x.shape[:2]
    columns = functional.unfold(x, kernel, dilation=dilation, stride=stride)
    patches = columns.view(b, c, kernel[0] * kernel[1], -1).permute(0, 3, 2, 1)
    return patches.reshape(-1, c * kernel[0] * kernel[1])
