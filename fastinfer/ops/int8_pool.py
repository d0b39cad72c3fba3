"""Pooling of uint8 images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.ops.int8_epilogue import check_requantize, check_uint8
from fastinfer.ops.quantize import round_clamp
from fastinfer.ops.spec import OpSpec

Ints = Sequence[int]


def pair(value: Ints | int) -> tuple[int, int]:
    """Return (height, width) of a pair, or of one int for both."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def pooled_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Return torch's number of windows: each starts in the image or in the padding before it."""
    rest = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (rest + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def _nhwc(x: Tensor, height: int, width: int) -> Tensor:
    return torch.empty(
        (x.shape[0], x.shape[1], height, width),
        dtype=torch.uint8,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _pooled(
    x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Tensor:
    k, s, p, d = pair(kernel), pair(stride), pair(padding), pair(dilation)
    sizes = [pooled_size(x.shape[2 + i], k[i], s[i], p[i], d[i], ceil_mode) for i in range(2)]
    return _nhwc(x, *sizes)


def _check_image(op: str, x: Tensor, kernel: Ints, padding: Ints) -> None:
    check_uint8(op, x)
    if x.dim() != 4 or 0 in x.shape[2:]:
        raise ValueError(f"{op}: expected x [N, C, H, W] with pixels, got {list(x.shape)}")
    k, p = pair(kernel), pair(padding)
    if any(2 * p[i] > k[i] for i in range(2)):
        raise ValueError(f"{op}: expected padding of at most half the kernel {k}, got {p}")


def int8_max_pool2d_fake(
    x: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Tensor:
    """Shape rule of int8_max_pool2d."""
    return _pooled(x, kernel_size, stride, padding, dilation, ceil_mode)


def int8_max_pool2d_ref(
    x: Tensor, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Tensor:
    """Return the largest code of every window; x: [N, C, H, W] uint8, padding never wins.

    Pairs are (height, width). The result is NHWC in memory.
    """
    _check_image("int8_max_pool2d", x, kernel_size, padding)
    out = _pooled(x, kernel_size, stride, padding, dilation, ceil_mode)
    if out.numel() == 0:
        return out
    q = F.max_pool2d(
        x.float(), pair(kernel_size), pair(stride), pair(padding), pair(dilation), ceil_mode
    )
    return out.copy_(q.to(torch.uint8))


def _average(
    total: Tensor, count: Tensor, multiplier: float, zero_point: int, qmin: int, qmax: int
) -> Tensor:
    """Return the requantized mean: total int32 [N, C, OH, OW], count [OH, OW]."""
    per_one = torch.tensor(multiplier, dtype=torch.float32) / count.float()
    f = total.to(torch.int32).float() * per_one.to(total.device)
    return round_clamp(f, zero_point, qmin, qmax)


def int8_avg_pool2d_fake(
    x: Tensor,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    multiplier: float,
    x_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Shape rule of int8_avg_pool2d."""
    return _pooled(x, kernel_size, stride, padding, (1, 1), ceil_mode)


def int8_avg_pool2d_ref(
    x: Tensor,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    multiplier: float,
    x_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Return clamp(rint(sum(x - zx) (multiplier / count)) + zo, qmin, qmax) for every window.

    x: [N, C, H, W] uint8. count: the window's pixels, with padding (but not what ceil_mode adds
    past it) when count_include_pad. multiplier: x's scale over the result's; the quotient, the sum
    and the product are rounded to float32. The result is NHWC in memory.
    """
    _check_image("int8_avg_pool2d", x, kernel_size, padding)
    check_requantize("int8_avg_pool2d", x_zero_point, out_zero_point, qmin, qmax)
    out = _pooled(x, kernel_size, stride, padding, (1, 1), ceil_mode)
    if out.numel() == 0:
        return out
    k, s, p = pair(kernel_size), pair(stride), pair(padding)
    windows = [
        _windows(x.shape[2 + i], out.shape[2 + i], k[i], s[i], p[i], count_include_pad)
        for i in range(2)
    ]
    total = _sums(x, x_zero_point, windows)
    count = torch.outer(windows[0][1], windows[1][1])
    return out.copy_(_average(total, count, multiplier, out_zero_point, qmin, qmax))


def _windows(
    size: int, count: int, kernel: int, stride: int, padding: int, include_pad: bool
) -> tuple[list[tuple[int, int]], Tensor]:
    """Return (first, last) inside the image and the divisor of every window of one axis."""
    spans, divisors = [], []
    for i in range(count):
        start = i * stride - padding
        end = min(start + kernel, size + padding)
        first, last = max(start, 0), min(end, size)
        spans.append((first, last))
        divisors.append(end - start if include_pad else last - first)
    return spans, torch.tensor(divisors)


def _sums(
    x: Tensor, zero_point: int, windows: Sequence[tuple[list[tuple[int, int]], Tensor]]
) -> Tensor:
    """Return the exact sums of x - zero_point over the windows of both axes, int64."""
    value = x.long() - zero_point
    rows = torch.stack([value[:, :, a:b].sum(2) for a, b in windows[0][0]], 2)
    return torch.stack([rows[..., a:b].sum(-1) for a, b in windows[1][0]], 3)


def int8_adaptive_avg_pool2d_fake(
    x: Tensor,
    output_size: Ints,
    multiplier: float,
    x_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Shape rule of int8_adaptive_avg_pool2d."""
    return _nhwc(x, *pair(output_size))


def int8_adaptive_avg_pool2d_ref(
    x: Tensor,
    output_size: Ints,
    multiplier: float,
    x_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
) -> Tensor:
    """Return the means of int8_avg_pool2d over output_size windows that cover x [N, C, H, W].

    Window i of an axis of n pixels and m windows is [floor(i n / m), ceil((i + 1) n / m)).
    """
    _check_image("int8_adaptive_avg_pool2d", x, (1, 1), (0, 0))
    check_requantize("int8_adaptive_avg_pool2d", x_zero_point, out_zero_point, qmin, qmax)
    size = pair(output_size)
    out = _nhwc(x, *size)
    if out.numel() == 0:
        return out
    windows = []
    for i in range(2):
        n, m = x.shape[2 + i], size[i]
        spans = [(j * n // m, -(-(j + 1) * n // m)) for j in range(m)]
        windows.append((spans, torch.tensor([b - a for a, b in spans])))
    total = _sums(x, x_zero_point, windows)
    count = torch.outer(windows[0][1], windows[1][1])
    return out.copy_(_average(total, count, multiplier, out_zero_point, qmin, qmax))


_REQUANTIZE = "float multiplier, int x_zero_point, int out_zero_point, int qmin, int qmax"

INT8_MAX_POOL2D = OpSpec(
    "int8_max_pool2d",
    "(Tensor x, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, "
    "bool ceil_mode) -> Tensor",
    int8_max_pool2d_fake,
    int8_max_pool2d_ref,
)
INT8_AVG_POOL2D = OpSpec(
    "int8_avg_pool2d",
    "(Tensor x, int[2] kernel_size, int[2] stride, int[2] padding, bool ceil_mode, "
    f"bool count_include_pad, {_REQUANTIZE}) -> Tensor",
    int8_avg_pool2d_fake,
    int8_avg_pool2d_ref,
)
INT8_ADAPTIVE_AVG_POOL2D = OpSpec(
    "int8_adaptive_avg_pool2d",
    f"(Tensor x, int[2] output_size, {_REQUANTIZE}) -> Tensor",
    int8_adaptive_avg_pool2d_fake,
    int8_adaptive_avg_pool2d_ref,
)
