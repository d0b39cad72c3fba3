"""Transformers on images and on embedded texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn


def _vision(name: str) -> nn.Module:
    """Return torchvision's model with a head that answers numbers: ViT's begins as zeros."""
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None)
    if name.startswith("vit"):
        nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


def encoder() -> nn.Module:
    """Return an encoder of MiniLM's size: 6 layers of 384, 12 heads."""
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


class _DecoderLayer(nn.Module):
    """GPT's layer: norms first, one layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, T, width] of x [N, T, width]."""
        n, t, width = x.shape
        parts = self.qkv(self.before(x)).split(width, dim=2)
        query, key, value = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, width))
        inner = F.gelu(self.up(self.behind(x)), approximate="tanh")
        result: Tensor = x + self.down(inner)
        return result


def _decoder() -> nn.Module:
    return nn.Sequential(*(_DecoderLayer(512, 8) for _ in range(6)), nn.LayerNorm(512))


#: Name -> (builder, shape of one input without the batch).
TRANSFORMERS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vit_b_16": (lambda: _vision("vit_b_16"), (3, 224, 224)),
    "swin_t": (lambda: _vision("swin_t"), (3, 224, 224)),
    "encoder 128 tokens": (encoder, (128, 384)),
    "encoder 16 tokens": (encoder, (16, 384)),
    "decoder 64 tokens": (_decoder, (64, 512)),
}
