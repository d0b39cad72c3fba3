import time
from types import SimpleNamespace

import pytest
import torch

from fastinfer.measure import Timing, fixed_threads, latency, time_interleaved


def test_quantiles() -> None:
    timing = Timing.from_samples([float(v) for v in range(11)])
    assert (timing.median_ms, timing.p20_ms, timing.p80_ms, timing.runs) == (5.0, 2.0, 8.0, 11)
    assert Timing.from_samples([4.0]) == Timing(4.0, 4.0, 4.0, 1)


def test_slower_is_slower_and_quick_ones_run_in_bursts() -> None:
    timings = time_interleaved(
        {"slow": lambda: time.sleep(0.02), "quick": lambda: time.sleep(0.001)}, min_time_s=0.1
    )
    assert timings["slow"].median_ms > 5 * timings["quick"].median_ms
    assert timings["slow"].runs >= 3
    assert timings["quick"].runs > timings["slow"].runs
    assert timings["slow"].p20_ms <= timings["slow"].median_ms <= timings["slow"].p80_ms


def test_functions_take_turns() -> None:
    order = []
    time_interleaved(
        {name: lambda name=name: (order.append(name), time.sleep(0.002)) for name in "ab"},
        min_time_s=0.01,
        max_rounds=3,
        warmup=0,
    )
    assert order[2:] == ["a", "b"] * 3


def test_enough_ends_it_from_the_third_round_on() -> None:
    asked = []

    def enough(samples) -> bool:
        asked.append({name: len(values) for name, values in samples.items()})
        return len(asked) == 2

    functions = {name: lambda: time.sleep(0.002) for name in "ab"}
    timings = time_interleaved(functions, min_time_s=0.001, max_rounds=50, enough=enough)
    assert [timings[name].runs for name in "ab"] == [3, 3] and not asked
    timings = time_interleaved(functions, min_time_s=0.5, max_rounds=50, enough=enough)
    assert len(asked) == 2 and timings["a"].runs == asked[1]["a"] < 50 * asked[1]["a"] / 4


def test_a_slow_one_may_be_called_once() -> None:
    calls = []
    functions = {"slow": lambda: calls.append(1), "quick": lambda: time.sleep(0.001)}
    timings = time_interleaved(functions, min_time_s=0.02, once=["slow"])
    assert len(calls) == timings["slow"].runs == 1 and timings["quick"].runs > 3


def test_the_budget_bounds_the_time(monkeypatch) -> None:
    """On a clock of its own: functions of a millisecond each, 50 a budget or a round of 5 more."""
    now_ms = [0]

    def one_ms() -> None:
        now_ms[0] += 1

    clock = SimpleNamespace(
        perf_counter=lambda: now_ms[0] / 1e3, perf_counter_ns=lambda: now_ms[0] * 10**6
    )
    monkeypatch.setattr(latency, "time", clock)
    timings = time_interleaved({"a": one_ms, "b": one_ms}, min_time_s=0.05)
    assert timings["a"].runs == timings["b"].runs and timings["a"].runs in (50, 55)
    assert timings["a"].median_ms == 1 and now_ms[0] == 2 * (timings["a"].runs + 2 + 1)


def test_threads_are_fixed_and_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []
    time_interleaved({"a": lambda: seen.append(torch.get_num_threads())}, min_time_s=0, threads=1)
    assert set(seen) == {1} and torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), fixed_threads(1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "bad", [{"min_time_s": -1}, {"max_rounds": 0}, {"warmup": -1}, {"threads": 0}]
)
def test_bad_bounds(bad: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        time_interleaved({"a": lambda: None}, **bad)


def test_nothing_to_time() -> None:
    with pytest.raises(ValueError, match="at least one function"):
        time_interleaved({})
