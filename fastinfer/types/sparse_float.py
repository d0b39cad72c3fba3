"""A float weight that is mostly zero, as its other entries: what sparse float kernels read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Inputs of a step; csrc/cpu/kernel_table.h has the same number.
INPUTS = 128


def sparse_float_bytes(weight: Tensor) -> int:
    """Return the bytes of the parts that a dense float32 weight would have, without making them."""
    rows = weight.shape[0] * -(-weight[0].numel() // INPUTS)
    return 5 * int(torch.count_nonzero(weight)) + 4 * (rows + 1)


@dataclass(frozen=True)
class SparseFloatWeight:
    """Entries of every group, for each step of INPUTS inputs, for each output, in ascending order.

    values: [entries] float32. places: [entries] uint8, of each the input in its step. starts:
    [groups * steps * outputs of a group + 1] int32, where each one's entries begin. shape: of the
    dense weight, [N, K] or [N, C / groups, kh, kw]; inputs count in its memory order.
    """

    values: Tensor
    places: Tensor
    starts: Tensor
    shape: tuple[int, ...]
    groups: int = 1

    @property
    def inputs(self) -> int:
        """Inputs of an output: K, or C / groups * kh * kw."""
        return int(torch.Size(self.shape[1:]).numel())

    @property
    def steps(self) -> int:
        """Steps of INPUTS inputs."""
        return -(-self.inputs // INPUTS)

    @staticmethod
    def of(weight: Tensor, groups: int = 1) -> SparseFloatWeight:
        """Return what is not zero of a dense weight, float32."""
        n = weight.shape[0]
        rows = weight.detach().reshape(groups, n // groups, -1)
        steps = -(-rows.shape[2] // INPUTS)
        padded = torch.nn.functional.pad(rows, (0, steps * INPUTS - rows.shape[2]))
        parts = padded.reshape(groups, n // groups, steps, INPUTS).transpose(1, 2).contiguous()
        kept = parts != 0
        counts = kept.sum(-1).reshape(-1)
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
        places = kept.nonzero()[:, -1].to(torch.uint8)
        return SparseFloatWeight(parts[kept], places, starts, tuple(weight.shape), groups)

    def dense(self) -> Tensor:
        """Return the dense weight."""
        n = self.shape[0]
        counts = self.starts.diff().long()
        row = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        parts = self.values.new_zeros(len(counts), INPUTS)
        parts[row, self.places.long()] = self.values
        whole = parts.reshape(self.groups, self.steps, n // self.groups, INPUTS).transpose(1, 2)
        return whole.reshape(n, -1)[:, : self.inputs].reshape(self.shape).contiguous()

    def check(self) -> None:
        """Raise ValueError where the parts are not those of one weight."""
        values, places, starts = self.values, self.places, self.starts
        rows = self.shape[0] * self.steps
        wanted = {
            f"values [{len(values)}] float32": (values.dtype, values.dim()) == (torch.float32, 1),
            f"places [{len(values)}] uint8": (places.dtype, places.shape)
            == (torch.uint8, values.shape),
            f"starts [{rows + 1}] int32": (starts.dtype, tuple(starts.shape))
            == (torch.int32, (rows + 1,)),
        }
        for text, is_so in wanted.items():
            if not is_so:
                raise ValueError(f"sparse float weight {list(self.shape)}: expected {text}")
        last = self.inputs - (self.steps - 1) * INPUTS
        bounded = len(values) == 0 or int(places.max()) < (INPUTS if self.steps > 1 else last)
        if int(starts[0]) != 0 or int(starts[-1]) != len(values) or bool((starts.diff() < 0).any()):
            raise ValueError(
                f"sparse float weight {list(self.shape)}: expected starts that ascend from 0 to "
                f"{len(values)}"
            )
        if not bounded:
            raise ValueError(f"sparse float weight {list(self.shape)}: a place is out of its step")
