"""convert where the whole has no graph: the largest submodules that have one run on it."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from small_detectors import Backbone, Block, Head, convert, images, seeded
from small_models import assert_alike
from torch import nn

import fastinfer
from fastinfer.engine import RegionModule
from fastinfer.nn import Int8LinearDynamic
from fastinfer.nn.converted_module import ModulePath
from fastinfer.nn.converted_submodule import ConvertedSubmodule


@pytest.fixture(scope="module")
def converted():
    torch.set_num_threads(1)
    model = seeded()
    batches = [(images(2, 16, seed),) for seed in range(1, 4)]
    with torch.no_grad():
        return model, convert(model, calibration=batches)


def test_backbone_and_head_are_captured(converted):
    model, fast = converted
    report = fastinfer.report(fast)
    assert report.path == "submodules" and isinstance(fast, ModulePath)
    assert [(p.name, p.path, p.calls) for p in report.parts] == [
        ("backbone", "graph", 1), ("head", "graph", 1)
    ]  # fmt: skip
    assert isinstance(fast.model.backbone, ConvertedSubmodule)
    # The list of the user's own holds the same converted head.
    assert fast.model.head is fast.model.watched[0]
    assert type(fast.model.box) is Int8LinearDynamic
    kinds = {row.name: row.precision for row in report.layers}
    assert list(kinds) == [
        "backbone.body.0",
        *(f"backbone.body.{i}.{name}" for i in (1, 2) for name in "ab"),
        *(f"head.{name}{level}" for name in ("conv", "score") for level in ("", "_1")),
        "box",
    ]
    assert kinds.pop("box") == "int8-dynamic" and set(kinds.values()) == {"int8"}
    assert type(model.backbone) is Backbone and type(model.head) is Head


def test_report_says_why_and_where(converted):
    report = fastinfer.report(converted[1])
    assert list(report.uncaptured) == [""]
    assert "data-dependent" in report.uncaptured[""] and "forward" in report.uncaptured[""]
    assert [r.part for r in report.regions] == ["backbone", "head"]
    body, head = report.regions
    # The pool that makes the last result is a step, too, and results are laid out for the caller.
    assert (body.steps, body.before, body.after) == (10, {"input": 1}, {"output": 1})
    assert head.before == {"input": 2}
    text = str(report)
    assert "Has no graph:\n  the whole model: torch.export" in text
    assert "backbone: 10 steps from input to output" in text
    assert all(p.sqnr_db > 20 and p.fast_ms for p in report.parts)
    assert type(report).from_dict(report.to_dict()) == report


def regions_with(part, prefix):
    """Return the regions of a converted submodule that hold layers of this name."""
    names = {id(m): name.removeprefix("lowered.") for name, m in part.named_modules()}
    regions = [m for m in part._regions[0].modules() if isinstance(m, RegionModule)]
    return [r for r in regions if any(names[id(m)].startswith(prefix) for m in r._modules_of)]


def test_backbone_is_one_region(converted):
    assert len(regions_with(converted[1].model.backbone, "backbone.")) == 1


@pytest.mark.parametrize(("batch", "size"), [(1, 16), (3, 16), (1, 24), (2, 7)])
def test_answers_like_the_original(converted, batch, size):
    model, fast = converted
    x = images(batch, size, seed=9)
    assert_alike(model(x), fast(x), 20.0)
    assert_alike(model(images=x, threshold=1e9), fast(images=x, threshold=1e9), 20.0)


def test_copies_state_and_hooks(converted):
    _, fast = converted
    x, seen = images(seed=3), []
    wanted = fast(x)["all"]
    copied = copy.deepcopy(fast)
    copied.load_state_dict({k: v.clone() for k, v in fast.state_dict().items()})
    assert torch.equal(copied(x)["all"], wanted)
    assert copied.model.head is copied.model.watched[0]
    assert copied.model.head is not fast.model.head
    for module in (copied.model, copied.model.backbone, copied.model.box):
        module.register_forward_hook(lambda *a: seen.append(1))
    copied(x)
    assert len(seen) == 3
    copied.train(False)
    with pytest.raises(RuntimeError, match="for inference"):
        copied.train()
    with pytest.raises(RuntimeError, match="dtypes"):
        copied.half()


def test_threads_give_the_same_bits(converted):
    _, fast = converted
    x = images(2, seed=4)
    wanted, same = fast(x)["all"], []

    def run():
        with torch.no_grad():
            same.extend(torch.equal(fast(x)["all"], wanted) for _ in range(5))

    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert same == [True] * 20


def test_compile_around_the_parts(converted):
    _, fast = converted
    torch._dynamo.reset()
    x = images(2, seed=6)
    compiled = torch.compile(fast, backend="eager")
    assert_alike(fast(x), compiled(x), 40.0)


def test_gradients_are_not_asked_for(converted):
    with torch.enable_grad():
        assert converted[1](images())["all"].shape == (320, 2)


def small_faster_rcnn():
    """Return torchvision's own code round a pyramid of two levels."""
    detection = pytest.importorskip("torchvision").models.detection
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), Block(8), nn.Conv2d(8, 16, 3, 2, 1), Block(16)
    )  # fmt: skip
    pyramid = detection.backbone_utils.BackboneWithFPN(body, {"1": "0", "3": "1"}, [8, 16], 16)
    return detection.FasterRCNN(
        pyramid,
        num_classes=3,
        min_size=32,
        max_size=32,
        rpn_anchor_generator=detection.anchor_utils.AnchorGenerator(
            ((8,), (16,), (32,)), ((1,),) * 3
        ),
        rpn_pre_nms_top_n_test=20,
        box_score_thresh=0.0,
    )


def test_a_detector_of_torchvision():
    model = seeded(small_faster_rcnn)
    x = images(2, 32)
    fast = fastinfer.convert(model, (x,), config="int8", calibration=[(images(1, 32, 5),)])
    report = fastinfer.report(fast)
    assert [p.name for p in report.parts] == [
        "backbone", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor"
    ]  # fmt: skip
    assert all(p.path == "graph" for p in report.parts)
    assert set(report.uncaptured) == {"", "rpn", "roi_heads"}
    # The pyramid's upsampling and additions are steps too.
    (backbone,) = (region for region in report.regions if region.part == "backbone")
    assert set(backbone.before) == {"input"} and set(backbone.after) == {"output"}
    for other in (x, images(1, 32, 6), images(3, 48, 7)):
        assert [set(one) for one in fast(other)] == [set(one) for one in model(other)]
        assert_alike(model.backbone(torch.stack(other)), fast.model.backbone(torch.stack(other)))
