"""What save and load refuse, and what they say."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile

import pytest
import safetensors.torch
import torch
from small_models import make
from torch import nn

import fastinfer
from fastinfer.artifact import ArtifactError, container
from fastinfer.artifact.document import _checksum, tensors_file, to_json
from fastinfer.config import UnsupportedError


@pytest.fixture
def saved(converted, tmp_path):
    """Return (fast, directory)."""
    fast, *_ = converted("shuffled")
    fastinfer.save(fast, tmp_path / "m")
    return fast, tmp_path / "m"


def rewrite(path, change, tensors=None):
    """Change an artifact's document as somebody would who makes the checksums right again."""
    document = json.loads((path / "model.json").read_bytes())
    if tensors is not None:
        digest = hashlib.sha256(tensors).hexdigest()
        (path / tensors_file(digest)).write_bytes(tensors)
        document["tensors"] |= {
            "sha256": digest, "file": tensors_file(digest), "bytes": len(tensors)
        }  # fmt: skip
    change(document)
    document["sha256"] = _checksum(document)
    (path / "model.json").write_bytes(to_json(document))


def test_what_is_no_converted_model(tmp_path):
    for value in (nn.Linear(2, 2), None, {}):
        with pytest.raises(TypeError, match="save: fast: expected a model returned by"):
            fastinfer.save(value, tmp_path / "m")


@pytest.mark.parametrize("location", ["gpu", "xpu", 0, torch.device("meta"), {}])
def test_map_location(saved, location):
    with pytest.raises(ValueError, match="map_location: expected None, 'cpu'"):
        fastinfer.load(saved[1], map_location=location)


@pytest.mark.parametrize("location", ["cuda", "cuda:1", torch.device("cuda", 63)])
def test_a_gpu_that_is_not_there(saved, location, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"map_location: expected a GPU .* torch sees 0; give"):
        fastinfer.load(saved[1], map_location=location)


def test_a_gpu_without_kernels(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(RuntimeError, match=r"compute capability 7.5.*map_location='cpu'"):
        fastinfer.load(saved[1], map_location="cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(fastinfer.runtime, "_C_cuda", None)
    with pytest.raises(RuntimeError, match=r"_C_cuda is missing.*map_location='cpu'"):
        fastinfer.load(saved[1], map_location="cuda:0")


def test_paths(saved, tmp_path):
    fast, _ = saved
    with pytest.raises(TypeError, match="path: expected a path"):
        fastinfer.save(fast, 3)
    with pytest.raises(TypeError, match="path: expected a path"):
        fastinfer.load(None)
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        fastinfer.save(fast, tmp_path / "no" / "m")
    with pytest.raises(FileNotFoundError, match="not there"):
        fastinfer.load(tmp_path / "no")
    (tmp_path / "notes").mkdir()
    with pytest.raises(ArtifactError, match=r"a folder without model\.json"):
        fastinfer.load(tmp_path / "notes")


@pytest.mark.parametrize("name", ["notes", "notes.fastinfer"])
def test_what_is_no_artifact_is_not_replaced(saved, tmp_path, name):
    fast, _ = saved
    (tmp_path / name).write_text("dear diary")
    with pytest.raises(FileExistsError, match="an artifact to replace"):
        fastinfer.save(fast, tmp_path / name)
    assert (tmp_path / name).read_text() == "dear diary"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("dear diary")
    with pytest.raises(FileExistsError, match="an artifact to replace"):
        fastinfer.save(fast, tmp_path / "folder")
    with pytest.raises(ArtifactError):
        fastinfer.load(tmp_path / name)


def test_code_of_the_users(tmp_path):
    model, x, _ = make("branching")
    fast = fastinfer.convert(model, x, config="int8")
    with pytest.raises(UnsupportedError, match=r"small_models\.Branching.*load_state_dict"):
        fastinfer.save(fast, tmp_path / "m")
    assert not list(tmp_path.iterdir())


class Named(nn.Linear):
    """A subclass may mean something of its own."""


def test_layers_that_are_not_what_they_seem(tmp_path):
    def converted(*layers):
        return fastinfer.convert(nn.Sequential(*layers).eval(), config="fp32")

    with pytest.raises(UnsupportedError, match=r"model\.0: .*Named"):
        fastinfer.save(converted(Named(2, 2)), tmp_path / "m")
    hooked = converted(nn.Tanh())
    hooked.model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedError, match=r"model\.0: expected no hooks"):
        fastinfer.save(hooked, tmp_path / "m")
    replaced = converted(nn.Tanh())
    replaced.model[0].forward = lambda x: x
    with pytest.raises(UnsupportedError, match="its forward was replaced"):
        fastinfer.save(replaced, tmp_path / "m")


def test_a_default_that_is_no_data(tmp_path):
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, size=torch.Size([2])):  # noqa: B008
            return self.layer(x)

    fast = fastinfer.convert(Sized().eval(), torch.randn(2, 4), config="int8")
    with pytest.raises(UnsupportedError, match=r"default of size: .*got torch\.Size"):
        fastinfer.save(fast, tmp_path / "m")


def test_a_newer_version(saved):
    def newer(document):
        document |= {"version": 9, "reader": 2, "fastinfer": "7.0"}

    rewrite(saved[1], newer)
    with pytest.raises(ArtifactError, match=r"written by fastinfer 7\.0.*update it"):
        fastinfer.load(saved[1])


def test_a_newer_version_that_this_one_can_read(saved):
    rewrite(saved[1], lambda document: document.update(version=9, extra="ignored"))
    assert fastinfer.load(saved[1]) is not None


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"format": "other"}', b"[" * 100_000])
def test_a_model_json_that_is_none(saved, text):
    (saved[1] / "model.json").write_bytes(text)
    with pytest.raises(ArtifactError, match="damaged or"):
        fastinfer.load(saved[1])


def test_damaged_tensors(saved):
    (file,) = saved[1].glob("*.safetensors")
    data = file.read_bytes()
    for other in (data[:-1], data + b"\0", b"", data[:-1] + bytes([data[-1] ^ 1])):
        file.write_bytes(other)
        with pytest.raises(ArtifactError):
            fastinfer.load(saved[1])
    file.unlink()
    with pytest.raises(ArtifactError, match="without tensors-"):
        fastinfer.load(saved[1])


def test_tensors_that_do_not_fit(saved):
    (file,) = saved[1].glob("*.safetensors")
    stored = safetensors.torch.load_file(file)
    name = next(iter(stored))
    for tensors, said in (
        ({k: v for k, v in stored.items() if k != name}, "lacks"),
        ({**stored, "more": torch.zeros(1)}, "has too more"),
        ({**stored, name: torch.zeros(7, 7)}, "expected .* got torch.float32"),
    ):
        rewrite(saved[1], lambda document: None, safetensors.torch.save(tensors))
        with pytest.raises(ArtifactError, match=said):
            fastinfer.load(saved[1])
    header = json.dumps(
        {"a": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 1 << 62]}}
    ).encode()
    rewrite(saved[1], lambda document: None, len(header).to_bytes(8, "little") + header)
    with pytest.raises(ArtifactError, match="load: tensors"):
        fastinfer.load(saved[1])


def first(document, op):
    return next(n for n in document["model"]["lowered"]["nodes"] if n["op"] == op)


BAD_TARGETS = [
    "os.system", "builtins.eval", "aten.from_file.default", "aten.add_.Tensor",
    "aten._print.default", "aten.no_such.default", "torchvision.nms.default",
    "fastinfer.no_such.default", 7, "aten.add",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_what_a_graph_may_not_call(saved, target):
    rewrite(saved[1], lambda d: first(d, "call_function").update(target=target))
    with pytest.raises(ArtifactError, match="load: op"):
        fastinfer.load(saved[1])


CODE = "a'); import os; os.abort(); ('"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: first(d, "placeholder").update(target="x=print(1)"),
        lambda d: first(d, "placeholder").update(name="x, y"),
        lambda d: first(d, "call_module").update(target=CODE),
        lambda d: first(d, "call_module").update(target='a"); print(1); ("'),
        lambda d: first(d, "call_module").update(op="call_method", target="numpy"),
        lambda d: first(d, "call_function").update(kwargs={CODE: 1}),
        lambda d: first(d, "call_function").update(args=[{"node": "nobody"}]),
        lambda d: first(d, "call_function").update(args=[{"import": "os"}]),
        lambda d: first(d, "output").update(target=CODE),
        lambda d: d["model"]["lowered"]["modules"].clear(),
        lambda d: next(iter(d["model"]["lowered"]["modules"].values())).update({"class": "Popen"}),
        lambda d: d["model"]["call"].update(conditions=[["pow", 2, 3]]),
        lambda d: d["model"]["call"].update(conditions=[["==", "s_no", 3]]),
        lambda d: d["model"]["call"].update(sizes=[["s0", 3, 0]]),
        lambda d: d["model"]["call"].update(inputs=[]),
        lambda d: d["model"].update(regions={}),
        lambda d: d.update(kind="pickle"),
        lambda d: d.update(model=None),
        lambda d: d.update(report=[]),
        lambda d: d["tensors"].update(file="../../etc/passwd"),
        lambda d: d["tensors"].update(table={}),
    ],
)
def test_a_document_that_save_did_not_write(saved, change, capsys):
    rewrite(saved[1], change)
    with pytest.raises(ArtifactError, match="load"):
        fastinfer.load(saved[1])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "names", [("model.json",), ("model.json", "../evil"), ("model.json", "/etc/x", "more")]
)
def test_a_zip_of_other_files(saved, tmp_path, names):
    path = tmp_path / "m.fastinfer"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, (saved[1] / "model.json").read_bytes())
    with pytest.raises(ArtifactError, match="a zip of model"):
        fastinfer.load(path)
    assert {p.name for p in tmp_path.iterdir()} == {"m", "m.fastinfer"}


def test_a_zip_bomb(saved, tmp_path):
    path = tmp_path / "m.fastinfer"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", b" " * (1 << 24))
        archive.writestr(f"tensors-{'0' * 16}.safetensors", b"\0")
    with pytest.raises(ArtifactError, match="expected it uncompressed"):
        fastinfer.load(path)


# A directory's tensors are renamed, then its model.json; a single file is renamed once.
@pytest.mark.parametrize(("suffix", "crash_at"), [("", 1), ("", 2), (".fastinfer", 1)])
def test_a_crash_leaves_the_old_one(converted, tmp_path, monkeypatch, suffix, crash_at):
    old, x, _ = converted("shuffled")
    new, *_ = converted("residual")
    path = tmp_path / f"m{suffix}"
    fastinfer.save(old, path)
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    calls = []

    def crash(source, target):
        calls.append(target)
        if len(calls) == crash_at:
            raise OSError("the disk is gone")
        return rename(source, target)

    rename = os.replace
    monkeypatch.setattr(container.os, "replace", crash)
    with pytest.raises(OSError, match="the disk is gone"):
        fastinfer.save(new, path)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before
    assert torch.equal(fastinfer.load(path)(x), old(x))


@pytest.mark.parametrize("suffix", ["", ".fastinfer"])
def test_the_new_one_replaces_the_old(converted, tmp_path, suffix):
    old, *_ = converted("shuffled")
    new, x, _ = converted("separable")
    path = tmp_path / f"m{suffix}"
    fastinfer.save(old, path)
    fastinfer.save(new, path)
    assert torch.equal(fastinfer.load(path)(x), new(x))
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == (1 if suffix else 2)
