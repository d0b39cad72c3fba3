"""time_whole: both models get the example's arguments, and medians come back."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from fastinfer.measure import Timing
from fastinfer.tune import time_whole


def test_time_whole(monkeypatch):
    calls, given = [], torch.ones(2, 8)

    def timings(functions, **options):
        for function in functions.values():
            function()
        return {
            name: Timing(float(i), 0.0, 9.0, 5) for i, name in enumerate(functions)
        }  # p20 and p80 unlike the median

    whole = importlib.import_module("fastinfer.tune.whole")
    monkeypatch.setattr(whole, "time_interleaved", timings)

    class Probe(nn.Module):
        def forward(self, x, scale):
            calls.append((self, x is given, scale, torch.is_inference_mode_enabled()))

    first, second = Probe(), Probe()
    got = time_whole({"original": first, "converted": second}, ((given,), {"scale": 3}))
    assert got == {"original": 0.0, "converted": 1.0}
    assert calls == [(first, True, 3, True), (second, True, 3, True)]


def test_a_clear_result_needs_three_rounds(monkeypatch):
    whole = importlib.import_module("fastinfer.tune.whole")
    asked = {}

    def timings(functions, **options):
        asked.update(options)
        return {name: Timing(1.0, 1.0, 1.0, 3) for name in functions}

    monkeypatch.setattr(whole, "time_interleaved", timings)
    time_whole({"original": nn.Identity(), "converted": nn.Identity()}, ((torch.ones(1),), {}))
    enough = asked["enough"]
    assert enough({"original": [9.0, 3.1], "converted": [1.0, 2.0]})
    assert not enough({"original": [9.0, 2.9], "converted": [1.0, 2.0]})  # one slow run of it
    assert not enough({"original": [1.0, 1.0], "converted": [3.0, 3.0]})  # a loser is timed longer
