"""model.json: versions, checksums, and what it takes to trust the rest of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from fastinfer.artifact.errors import ArtifactError
from fastinfer.runtime import VERSION

FORMAT = "fastinfer-artifact"
#: Of what this release writes, and the least that can read that. A reader refuses an artifact whose
#: `reader` is above its own FORMAT_VERSION.
FORMAT_VERSION = 1
LEAST_READER = 1
#: Bytes of JSON that are read at most; ResNet-152 takes 0.6 MB.
MOST_JSON = 64 << 20


def make_document(
    kind: str, model: Any, report: Any, tensors: bytes, table: Any, device: str = "cpu"
) -> dict[str, Any]:
    """Return the document of a model; kind is "graph" or "modules", device the type of its own."""
    digest = hashlib.sha256(tensors).hexdigest()
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "reader": LEAST_READER,
        "fastinfer": VERSION,
        "torch": torch.__version__,
        "kind": kind,
        "tensors": {
            "file": tensors_file(digest),
            "sha256": digest,
            "bytes": len(tensors),
            "table": table,
        },
        "model": model,
        "report": report,
    }
    if device != "cpu":
        document["device"] = device
    return {**document, "sha256": _checksum(document)}


def tensors_file(digest: str) -> str:
    """Return the name of a file of tensors: by its content, so that a new one is beside the old."""
    return f"tensors-{digest[:16]}.safetensors"


def _checksum(document: dict[str, Any]) -> str:
    """Return the sha256 of a document without its own."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(document: dict[str, Any]) -> bytes:
    """Return the bytes of model.json, one line for every part of the document."""
    lines = (f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in document.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def peek(data: bytes) -> dict[str, Any] | None:
    """Return the document of a model.json of any version, None when it is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and document.get("format") == FORMAT else None


def read_document(data: bytes) -> dict[str, Any]:
    """Return the document of a model.json whose version and checksum are right.

    Raises:
        ArtifactError: it is no document of ours, damaged, or of a newer version.
    """
    document = peek(data)
    if document is None:
        raise ArtifactError(
            'load: model.json: expected JSON with "format": "fastinfer-artifact"; it is damaged or '
            "no artifact"
        )
    reader = document.get("reader")
    if type(reader) is not int or type(document.get("version")) is not int:
        raise ArtifactError("load: model.json: expected a version; it is damaged")
    if reader > FORMAT_VERSION:
        raise ArtifactError(
            f"load: expected an artifact of format {FORMAT_VERSION} at most, got one of format "
            f"{document['version']} that needs {reader}, written by fastinfer "
            f"{document.get('fastinfer')}; this is fastinfer {VERSION}: update it"
        )
    if not _is_whole(document):
        raise ArtifactError(
            "load: model.json: its checksum differs from its content; it is damaged, or was edited"
        )
    return document


def _is_whole(document: dict[str, Any]) -> bool:
    try:
        return bool(document.get("sha256") == _checksum(document))
    except RecursionError:  # nested as no model is
        return False


def check_tensors(document: dict[str, Any], data: bytes) -> None:
    """Raise ArtifactError unless data is the file of tensors that the document means."""
    wanted = document["tensors"]
    if len(data) != wanted["bytes"] or hashlib.sha256(data).hexdigest() != wanted["sha256"]:
        raise ArtifactError(
            f"load: {wanted['file']}: expected {wanted['bytes']} bytes of sha256 "
            f"{wanted['sha256'][:16]}..., got {len(data)} others; it is damaged or cut short"
        )
