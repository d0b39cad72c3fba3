import pytest
import torch
from torch import nn

from fastinfer.measure import benchmark, model_bytes, peak_bytes

X = torch.randn(8, 16)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return {"a": x * scale, "b": x.sum(1)}


def test_rows_ratio_and_throughput() -> None:
    small, large = nn.Linear(16, 4), nn.Sequential(nn.Linear(16, 4000), nn.Linear(4000, 4))
    table = benchmark({"large": large, "small": small}, X, threads=1, min_time_s=0.05)
    row = table["small"]
    assert table["large"].ratio == 1.0 and row.ratio > 1.0
    assert row.samples_per_s == pytest.approx(8e3 / row.timing.median_ms)
    assert row.model_bytes == (16 * 4 + 4) * 4
    assert table["large"].peak_bytes >= 8 * 4000 * 4
    assert table.threads == 1 and "small" in str(table) and "1 threads" in str(table)
    assert table.to_dict()["rows"][1]["timing"]["runs"] == row.timing.runs
    with pytest.raises(KeyError):
        table["other"]


def test_inputs_as_tuple_and_dict() -> None:
    model = Branches()
    benchmark({"m": model}, (X, 2.0), min_time_s=0)
    benchmark({"m": model}, {"x": X, "scale": 2.0}, min_time_s=0)


def test_a_failing_model_is_named() -> None:
    with pytest.raises(RuntimeError, match="'broken' failed on the inputs: RuntimeError: mat1"):
        benchmark({"ok": nn.Linear(16, 4), "broken": nn.Linear(3, 4)}, X)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (nn.Linear(16, 5), r"expected an output \[8, 4\] like the first model's, got \[8, 5\]"),
        (Branches(), "output structure"),
        (lambda x: torch.full((8, 4), float("nan")), "expected finite outputs"),
    ],
)
def test_another_answer_is_an_error(other: object, text: str) -> None:
    with pytest.raises(ValueError, match=f"model 'other': .*{text}|{text}"):
        benchmark({"first": nn.Linear(16, 4), "other": other}, X)


def test_accuracy_stands_beside_latency_and_size() -> None:
    modes = []

    def evaluate(model: nn.Module) -> torch.Tensor:
        modes.append((model.training, torch.is_grad_enabled()))
        return model.weight.new_tensor(model.out_features / 8)

    models = {"before": nn.Linear(16, 4), "after": nn.Linear(16, 4)}
    models["after"].out_features = 2
    table = benchmark(models, X, min_time_s=0, evaluate=evaluate)
    assert [row.accuracy for row in table.rows] == [0.5, 0.25]
    assert modes == [(False, False)] * 2 and models["after"].training
    assert "accuracy" in str(table) and "0.25" in str(table)
    assert table.to_dict()["rows"][1]["accuracy"] == 0.25


def test_without_evaluate_there_is_no_column() -> None:
    table = benchmark({"m": nn.Linear(16, 4)}, X, min_time_s=0)
    assert table["m"].accuracy is None and "accuracy" not in str(table)


@pytest.mark.parametrize(
    ("evaluate", "error", "text"),
    [
        (0.9, TypeError, "evaluate: expected a function of a model, got 0.9"),
        (lambda m: "good", TypeError, "evaluate: expected a number for model 'm', got 'good'"),
        (lambda m: None, TypeError, "evaluate: expected a number for model 'm', got None"),
        (lambda m: torch.ones(2), TypeError, "evaluate: expected a number for model 'm', got tens"),
        (lambda m: m.nothing, RuntimeError, "evaluate failed on model 'm': AttributeError"),
    ],
)
def test_bad_evaluate(evaluate: object, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        benchmark({"m": nn.Linear(16, 4)}, X, evaluate=evaluate)


def test_bad_models() -> None:
    with pytest.raises(TypeError, match="expected models"):
        benchmark([nn.Linear(2, 2)], X)
    with pytest.raises(ValueError, match="at least one model"):
        benchmark({}, X)


def test_modes_come_back_and_dropout_rests() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(16).eval())
    benchmark({"m": model}, X, min_time_s=0)
    assert model[0].training and not model[1].training


def test_shared_tensors_count_once() -> None:
    layer = nn.Linear(4, 4, bias=False)
    assert model_bytes(nn.Sequential(layer, layer)) == 64
    assert model_bytes(print) == 0


def test_peak_counts_what_is_alive_together() -> None:
    def run() -> torch.Tensor:
        first = torch.zeros(1 << 18)
        del first
        return torch.zeros(1 << 18)

    assert 1 << 20 <= peak_bytes(run) < 2 << 20
