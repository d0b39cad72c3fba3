import json
from pathlib import Path

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer import cli
from fastinfer.cli_model import UsageError, example_input, load_model
from fastinfer.report import LayerReport, Report


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU())


ready_made = tiny()
not_a_model = 3


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    layers = [LayerReport("0", "linear", "4->3", "int8", float_ms=2.0, fast_ms=1.0, sqnr_db=40.0)]
    Report(path="graph", layers=layers, float_ms=2.0, fast_ms=1.0).save(tmp_path / "r.json")
    return tmp_path / "r.json"


@pytest.fixture
def fake_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line only passes on what convert does."""

    def convert(model: nn.Module, inputs: object, *, config: str) -> nn.Module:
        model._report = Report(path=f"fake {config}", layers=[])
        return model

    monkeypatch.setattr(fastinfer, "convert", convert, raising=False)


@pytest.mark.parametrize("name", ["tiny", "ready_made"])
def test_load_model(name: str) -> None:
    model = load_model(f"{__name__}:{name}")
    assert isinstance(model, nn.Sequential) and not model.training


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("no_colon", "expected MODULE:FACTORY"),
        ("missing_module_xyz:a", "cannot import missing_module_xyz:a"),
        (f"{__name__}:absent", "cannot import"),
        (f"{__name__}:not_a_model", "is int, neither module nor callable"),
        ("builtins:dict", "makes dict, not a torch.nn.Module"),
        ("builtins:getattr", r"builtins:getattr\(\) failed: TypeError"),
    ],
)
def test_load_model_says_what_is_wrong(target: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        load_model(target)


def test_example_input() -> None:
    x = example_input("2x3x8x8")
    assert x.shape == (2, 3, 8, 8) and x.dtype == torch.float32
    assert example_input("1X7:int64").dtype == torch.int64
    assert torch.equal(x, example_input("2x3x8x8"))


@pytest.mark.parametrize("text", ["", "axb", "0x3", "1x-2", "3:complex"])
def test_bad_input_texts(text: str) -> None:
    with pytest.raises(UsageError, match="expected --input"):
        example_input(text)


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info"]) == 0
    assert "torch_isa" in capsys.readouterr().out
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["torch"] == torch.__version__


def test_report_and_plot(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["report", str(saved), "--plot", str(saved.with_suffix(".png"))]) == 0
    assert "2.00x" in capsys.readouterr().out
    assert saved.with_suffix(".png").exists()


def test_convert_prints_and_writes_the_report(
    fake_convert: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert cli.main(["convert", f"{__name__}:tiny", "--input", "1x4", "-o", str(out)]) == 0
    assert Report.load(out).path == "fake auto"
    assert "fake auto" in capsys.readouterr().out


def test_convert_saves_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, saved = tmp_path / "out.json", tmp_path / "model.fastinfer"
    arguments = ["convert", f"{__name__}:tiny", "--input", "1x4", "-o", str(out)]
    assert cli.main([*arguments, "--config", "int8", "--save", str(saved)]) == 0
    assert f"wrote the model to {saved}" in capsys.readouterr().out
    assert fastinfer.load(saved)(torch.zeros(3, 4)).shape[0] == 3


def test_bench_prints_a_table_and_writes_json(
    fake_convert: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "b.json"
    arguments = ["bench", f"{__name__}:tiny", "--input", "2x4", "--seconds", "0.01", "-o", str(out)]
    assert cli.main(arguments) == 0
    assert "fastinfer auto" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["rows"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["report", "absent.json"], 2),
        (["convert", "no_colon", "-o", "x"], 2),
        (["bench", f"{__name__}:tiny", "--input", "axb"], 2),
        (["bench", f"{__name__}:tiny", "--input", "2x5"], 1),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], code: int, fake_convert: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith(f"fastinfer {arguments[0]}: ") and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["absent"], ["convert"], ["demo", "--threads", "0"]])
def test_bad_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize("command", ["convert", "bench"])
@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu", "expected --device cpu, cuda or cuda:1, got gpu"), ("cuda:63", "it sees")],
)
def test_a_device_that_is_not_there(command, device, said, capsys, tmp_path):
    arguments = [command, "torch.nn:Identity", "--input", "1x4", "-o", str(tmp_path / "r.json")]
    assert cli.main([*arguments, "--device", device]) == 2
    assert said in capsys.readouterr().err


def test_a_device(fake_convert, capsys, tmp_path):
    place = f"{__name__}:tiny"
    arguments = ["convert", place, "--input", "1x4", "-o", str(tmp_path / "r.json")]
    assert cli.main([*arguments, "--device", "cpu"]) == 0
