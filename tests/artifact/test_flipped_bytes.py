"""No byte of an artifact can change unnoticed and change an answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastinfer
from fastinfer.artifact import ArtifactError

_EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def artifact(converted, tmp_path):
    """Return (path, its bytes, example, answer)."""
    fast, x, _ = converted("shared")
    path = tmp_path / "m.fastinfer"
    fastinfer.save(fast, path)
    return path, path.read_bytes(), x, fast(x)


def check(path, data, x, wanted):
    """Load data, which raises our error or answers as before."""
    path.write_bytes(data)
    try:
        loaded = fastinfer.load(path)
    except ArtifactError:
        return
    assert torch.equal(loaded(x), wanted)


@_EXAMPLES
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_byte(artifact, where, flip):
    path, data, x, wanted = artifact
    index = int(where * len(data))
    check(path, data[:index] + bytes([data[index] ^ flip]) + data[index + 1 :], x, wanted)


def test_every_byte_of_the_zips_own(artifact):
    """The zip's headers, which no checksum of ours covers, at both ends and in the middle."""
    path, data, x, wanted = artifact
    middle = data.rindex(b"PK\x03\x04")
    places = [*range(60), *range(middle, middle + 70), *range(len(data) - 250, len(data))]
    for index in places:
        for flip in (0x01, 0x80, 0xFF):
            changed = data[:index] + bytes([data[index] ^ flip]) + data[index + 1 :]
            check(path, changed, x, wanted)


@_EXAMPLES
@given(where=st.floats(0, 1, exclude_max=True), much=st.integers(0, 64))
def test_cut_short_or_longer(artifact, where, much):
    path, data, x, wanted = artifact
    check(path, data[: int(where * len(data))], x, wanted)
    check(path, data + bytes(much), x, wanted)


def test_flips_are_noticed(artifact):
    """A flip within the tensors or the document is an error, not a harmless one."""
    path, data, *_ = artifact
    for needle in (b'"scale"', b'"sha256"', b"tensors-"):
        index = data.find(needle)
        if index < 0:
            continue
        path.write_bytes(data[: index + 2] + bytes([data[index + 2] ^ 1]) + data[index + 3 :])
        with pytest.raises(ArtifactError):
            fastinfer.load(path)
