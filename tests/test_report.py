import json

import pytest
import torch

from fastinfer.report import LayerReport, PartReport, RegionReport, Report, report
from fastinfer.report_text import MAX_REASONS, format_table, mebibytes


@pytest.fixture
def filled() -> Report:
    return Report(
        path="graph",
        layers=[
            LayerReport(
                "features.0", "conv2d", "3->32 3x3/2", "int8", "", 1.0, 0.25, 31.5, 900, 3500
            ),
            LayerReport("head", "linear", "1280->1000", "fp32", "int8 is slower here", 0.5, 0.5),
        ],
        notes=["calibrated on 4 batches"],
        passes={"fold_batch_norm": 52, "cse": 0},
        float_ms=10.0,
        fast_ms=2.5,
        sqnr_db=20.25,
        convert_s=3.21,
        environment={"isa": "avx2", "threads": 2},
    )


def test_text_names_layers_times_fallbacks_and_notes(filled: Report) -> None:
    text = str(filled)
    for part in ("features.0", "4.00x", "31.5", "int8 is slower here", "calibrated on 4 batches"):
        assert part in text
    assert "fold_batch_norm 52" in text and "cse" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_stages_are_timed_and_named_in_one_line(filled: Report) -> None:
    assert "stages" not in str(filled)
    for stage in ("capture", "lower", "capture"):
        with filled.timed(stage):
            pass
    with pytest.raises(ZeroDivisionError), filled.timed("guard"):
        1 / 0  # noqa: B018
    assert list(filled.stage_s) == ["capture", "lower", "guard"]
    filled.stage_s = {"capture": 2.04, "lower": 0.31}
    assert "  stages       capture 2.0, lower 0.3 s\n" in str(filled)
    assert Report.from_dict(filled.to_dict()).stage_s == filled.stage_s


def test_operations_between_layers_are_counted(filled: Report) -> None:
    assert "between" not in str(filled)
    filled.between_total, filled.between_int8 = 17, 16
    assert "16 of 17 operations between layers in int8" in str(filled)


def test_regions_are_listed_with_where_they_begin_and_end(filled: Report) -> None:
    filled.regions = [
        RegionReport(80, before={"input": 1}, after={"upsample_nearest2d": 3, "output": 1}),
        RegionReport(4, before={"float conv2d": 1}),
    ]
    text = str(filled)
    assert "engine       2 regions: 80 + 4 steps" in text
    assert "  80 steps from input to 3x upsample_nearest2d, output" in text
    assert "  4 steps from float conv2d to nothing" in text


@pytest.fixture
def of_parts(filled: Report) -> Report:
    filled.path = "submodules"
    filled.uncaptured = {"": "torch.export: values decide", "rpn": "takes a list of images"}
    filled.parts = [
        PartReport("backbone", "FPN", "graph", "", 1, 66, 64, 10.0, 2.0, 27.25),
        PartReport("rpn.head", "RPNHead", "modules", "lower failed: no registers", 5),
    ]
    filled.regions = [RegionReport(80, "backbone", {"input": 1}, {"output": 1})] * 2
    return filled


def test_parts_are_listed_with_their_regions_and_reasons(of_parts: Report) -> None:
    lines = str(of_parts).splitlines()
    assert "  the whole model: torch.export: values decide" in lines
    assert "  rpn: takes a list of images" in lines
    (row,) = [line.split() for line in lines if line.startswith("backbone")]
    assert row[1:] == ["FPN", "1", "64/66", "2", "160", "10.000", "2.000", "5.00x", "27.2"]
    assert "  rpn.head was not kept as a graph: lower failed: no registers" in lines
    assert "  backbone: 80 steps from input to output" in lines


def test_parts_and_regions_are_saved_and_loaded(of_parts: Report, tmp_path) -> None:
    of_parts.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == of_parts


def test_many_reasons_are_not_all_printed() -> None:
    text = str(Report(uncaptured={f"block{i}": "no" for i in range(MAX_REASONS + 5)}))
    assert "and 5 more" in text and "block3: no" in text and f"block{MAX_REASONS}" not in text


def test_an_empty_report_is_still_text() -> None:
    assert "layers       none" in str(Report())


def test_speedup_needs_both_times() -> None:
    assert Report(float_ms=1.0).speedup is None
    assert Report(float_ms=1.0, fast_ms=0.5).speedup == 2.0


def test_save_and_load_give_an_equal_report(filled: Report, tmp_path) -> None:
    filled.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == filled
    assert json.loads((tmp_path / "report.json").read_text())["speedup"] == 4.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": [{"colour": 1}]}'])
def test_loading_anything_else_is_an_error(text: str, tmp_path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match="Report: expected"):
        Report.load(tmp_path / "report.json")


def test_report_of_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"returned by fastinfer\.convert, got torch.*Linear"):
        report(torch.nn.Linear(2, 2))


def test_report_finds_the_attribute(filled: Report) -> None:
    model = torch.nn.Linear(2, 2)
    model._report = filled
    assert report(model) is filled


def test_plot_writes_a_png(filled: Report, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    filled.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="with layers, got none"):
        Report().plot(tmp_path / "empty.png")


def test_table_aligns_numbers_right_and_cuts_long_text() -> None:
    text = format_table(["name", "ms"], [["a", "1.5"], ["b" * 60, "-"], ["c", "100.25"]])
    lines = text.splitlines()
    assert lines[2].endswith("   1.5") and lines[4].endswith("100.25")
    assert "…" in lines[3] and len(lines[3]) <= 60


@pytest.mark.parametrize(("count", "text"), [(None, "-"), (512, "0.5 KiB"), (3 << 20, "3.00 MiB")])
def test_byte_counts(count: int | None, text: str) -> None:
    assert mebibytes(count) == text
