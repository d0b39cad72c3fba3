"""A checkpoint: one safetensors file whose metadata is JSON, at every moment the old or the new."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fastinfer.compress.distill.seeds import tensor_bytes
from fastinfer.types.durable import sync_folder, write_synced

FORMAT = "fastinfer-training"
FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint is damaged, none of ours, or of another run."""


def write_checkpoint(
    path: Path, document: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a checkpoint; until the last step the one at path is whole.

    Raises:
        CheckpointError: a tensor or a value cannot be stored.
    """
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    try:
        text = json.dumps(document, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"checkpoint: expected values that JSON has: {error}") from error
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "document": text,
        "sha256": _checksum(text, stored),
    }
    try:
        data = safetensors.torch.save(stored, metadata)
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"checkpoint: expected plain tensors: {error}") from error
    # One name, so that what a kill left half written is gone with the next write.
    beside = path.with_name(f".{path.name}.tmp")
    try:
        write_synced(beside, data, replaces=True)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the document and the tensors, on cpu.

    Raises:
        CheckpointError: what is at path is no checkpoint, damaged, or of a newer version.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint: expected a file, got {path}, which is a folder")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint: {path}: expected a checkpoint of fastinfer, a safetensors file; it is "
            f"damaged, cut short or none ({error}); remove it to start anew"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint: {path}: expected a checkpoint of fastinfer, got another safetensors "
            "file; choose another path"
        )
    if metadata.get("version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"checkpoint: {path}: expected version {FORMAT_VERSION}, got "
            f"{metadata.get('version')}; finish it with the fastinfer that wrote it"
        )
    text = metadata.get("document", "")
    if metadata.get("sha256") != _checksum(text, tensors):
        raise CheckpointError(
            f"checkpoint: {path}: its checksum differs from its content; it is damaged: remove it "
            "to start anew"
        )
    return json.loads(text), tensors


def check_path(what: str, path: Path) -> None:
    """Raise FileNotFoundError unless path's folder exists."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{what}: checkpoint: expected a folder {path.parent}, which is none"
        )


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
