"""Config: presets, contradictions, and which layers stay float."""

from __future__ import annotations

import pytest
from torch import nn

from fastinfer import Config, UnsupportedError
from fastinfer.config import PRESETS, named_ignores, resolve_config


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    assert resolve_config(name) == Config(precision=name)


def test_config_passes_through():
    config = Config(precision="int8", ignore=["head"])
    assert resolve_config(config) is config
    assert config.ignore == ("head",)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"precision": "int7"}, "expected precision in"),
        ({"mode": "sometimes"}, "expected mode in"),
        ({"precision": "bf16", "mode": "static"}, "contradicts precision='bf16'"),
        ({"precision": "int8-dynamic", "mode": "static"}, "contradicts precision='int8-dynamic'"),
        ({"observer": "guess"}, "expected observer in"),
        ({"precision": "int8", "allow_slower": True}, "allow_slower is for precision auto"),
        ({"ignore": "head"}, "expected ignore a sequence, got the string 'head'"),
        ({"ignore": (3,)}, "names, patterns or module types, got 3"),
        ({"ignore": (int,)}, "names, patterns or module types"),
        ({"min_sqnr_db": float("nan")}, "got NaN"),
    ],
)
def test_contradictions(values, text):
    with pytest.raises(ValueError, match=text):
        Config(**values)


@pytest.mark.parametrize(
    ("values", "text"),
    [({"precision": "int4-weight-only"}, "no kernel yet"), ({"sparsity": 0.5}, "fastinfer.prune")],
)
def test_unsupported(values, text):
    with pytest.raises(UnsupportedError, match=text):
        Config(**values)


def test_config_of_another_type():
    with pytest.raises(TypeError, match="preset name or a Config"):
        resolve_config(8)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("body.0", ("body.0",)),
        ("body.*", ("body.*",)),
        ("attention.in_proj", ("attention.in_proj",)),
        (nn.MultiheadAttention, ("attention", "attention.*")),
        (Model, ("*",)),
    ],
)
def test_ignores_become_names(entry, names):
    assert named_ignores(Config(ignore=(entry,)), Model()).ignore == names


@pytest.mark.parametrize("entry", ["boddy.*", nn.Conv3d])
def test_ignore_of_nothing(entry):
    with pytest.raises(ValueError, match="which is none of them"):
        named_ignores(Config(ignore=(entry,)), Model())
