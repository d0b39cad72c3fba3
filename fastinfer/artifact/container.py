"""Where an artifact lies: a directory or one file, and at every moment the old or the new one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from fastinfer.artifact.document import MOST_JSON, peek
from fastinfer.artifact.errors import ArtifactError
from fastinfer.types.durable import sync_folder, write_synced

#: A path that ends so is one file, an uncompressed zip; any other is a directory.
SUFFIX = ".fastinfer"
MODEL = "model.json"
_TENSORS = re.compile(r"tensors-[0-9a-f]{16}\.safetensors")
#: What zipfile raises on bytes that are no zip it can read: RuntimeError where they say encrypted,
#: NotImplementedError where they name a version or compression it lacks, the others where sizes,
#: offsets or compressed data are not what they should be.
_ZIP_ERRORS = (
    zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, ValueError,
    EOFError, KeyError, IndexError, OverflowError, struct.error, zlib.error, OSError,
)  # fmt: skip

ReadTensors = Callable[[str, int], bytes]


def write(path: Path, model: bytes, tensors_name: str, tensors: bytes) -> None:
    """Write an artifact; until the last step what was at path is whole.

    Raises:
        FileExistsError: path exists and is no artifact.
        FileNotFoundError: its folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: path: expected a folder {path.parent}, which is none")
    if path.exists() or path.is_symlink():
        _check_replaceable(path)
    if path.suffix == SUFFIX:
        _write_file(path, model, tensors_name, tensors)
    elif path.exists() and any(path.iterdir()):
        _update_directory(path, model, tensors_name, tensors)
    else:
        _write_directory(path, model, tensors_name, tensors)


def _check_replaceable(path: Path) -> None:
    """Raise FileExistsError unless path is an artifact of its kind or an empty folder."""
    wants_file = path.suffix == SUFFIX
    if path.is_dir() and not wants_file:
        model = path / MODEL
        known = not any(path.iterdir()) or (model.is_file() and peek(_read(model, MOST_JSON)))
    else:
        known = wants_file and path.is_file() and _is_zip_of_ours(path)
    if not known:
        raise FileExistsError(
            f"save: path: expected a new path or an artifact to replace, got {path}, which is "
            "neither; remove it or choose another"
        )


def _is_zip_of_ours(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return peek(archive.read(MODEL)) is not None
    except _ZIP_ERRORS:
        return False


def _write_file(path: Path, model: bytes, tensors_name: str, tensors: bytes) -> None:
    beside = _beside(path)
    try:
        with beside.open("xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, data in ((MODEL, model), (tensors_name, tensors)):
                    # A fixed time: the same model is the same bytes.
                    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    info.external_attr = 0o644 << 16
                    archive.writestr(info, data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _write_directory(path: Path, model: bytes, tensors_name: str, tensors: bytes) -> None:
    beside = _beside(path)
    beside.mkdir()
    try:
        write_synced(beside / tensors_name, tensors)
        write_synced(beside / MODEL, model)
        sync_folder(beside)
        os.replace(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(path.parent)


def _update_directory(path: Path, model: bytes, tensors_name: str, tensors: bytes) -> None:
    """Replace the artifact in a directory: model.json says which tensors are its own.

    A directory cannot be renamed over another that is not empty, and between two renames there
    would be none.
    """
    old = peek(_read(path / MODEL, MOST_JSON)) or {}
    old_name = old["tensors"]["file"] if isinstance(old.get("tensors"), dict) else ""
    beside_tensors, beside_model = _beside(path / tensors_name), _beside(path / MODEL)
    is_new = not (path / tensors_name).exists()
    try:
        write_synced(beside_tensors, tensors)
        write_synced(beside_model, model)
        os.replace(beside_tensors, path / tensors_name)
        os.replace(beside_model, path / MODEL)
    except BaseException:
        for file in (beside_tensors, beside_model):
            file.unlink(missing_ok=True)
        if is_new:
            (path / tensors_name).unlink(missing_ok=True)
        raise
    sync_folder(path)
    if old_name != tensors_name and isinstance(old_name, str) and _TENSORS.fullmatch(old_name):
        (path / old_name).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


def read(path: Path) -> tuple[bytes, ReadTensors]:
    """Return model.json and a function that reads the tensors, given their file and its size.

    Nothing larger than the files themselves is read, and no name inside leads outside.

    Raises:
        FileNotFoundError: there is nothing at path.
        ArtifactError: what is there is no artifact, or lacks a file.
    """
    if not path.exists():
        raise FileNotFoundError(f"load: path: expected an artifact, got {path}, which is not there")
    return _read_directory(path) if path.is_dir() else _read_file(path)


def _read_directory(path: Path) -> tuple[bytes, ReadTensors]:
    def read_tensors(name: str, size: int) -> bytes:
        if not isinstance(name, str) or not _TENSORS.fullmatch(name):
            raise ArtifactError(f"load: expected a file of tensors, got the name {name!r}")
        return _read(path / name, size)

    return _read(path / MODEL, MOST_JSON), read_tensors


def _read(path: Path, most: int) -> bytes:
    if not path.is_file():
        raise ArtifactError(
            f"load: expected an artifact in {path.parent}, got a folder without {path.name}"
        )
    if path.stat().st_size > most:
        raise ArtifactError(
            f"load: {path.name}: expected {most} bytes at most, got {path.stat().st_size}"
        )
    return path.read_bytes()


def _read_file(path: Path) -> tuple[bytes, ReadTensors]:
    size = path.stat().st_size
    contents: dict[str, bytes] = {}
    with path.open("rb") as file, contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
            names = [info.filename for info in archive.infolist()]
            if len(names) != 2 or MODEL not in names or not any(map(_TENSORS.fullmatch, names)):
                raise ArtifactError(
                    f"load: {path.name}: expected a zip of {MODEL} and a file of tensors, got one "
                    f"of {names[:4]}"
                )
            for info in archive.infolist():
                most = min(size, MOST_JSON) if info.filename == MODEL else size
                stored = info.compress_type == zipfile.ZIP_STORED
                if not stored or max(info.file_size, info.compress_size) > most:
                    raise ArtifactError(
                        f"load: {path.name}: {info.filename}: expected it uncompressed and {most} "
                        f"bytes at most, got {info.file_size} declared"
                    )
                contents[info.filename] = archive.read(info)
        except ArtifactError:
            raise
        except _ZIP_ERRORS as error:
            raise ArtifactError(
                f"load: {path.name}: expected an artifact, an uncompressed zip; it is damaged, cut "
                f"short or none: {error}"
            ) from error

    def read_tensors(name: str, size: int) -> bytes:
        if name not in contents or name == MODEL:
            raise ArtifactError(f"load: {path.name}: expected a file {name!r}, which is not in it")
        return contents[name]

    return contents[MODEL], read_tensors
