"""Rows of a layer: inputs times matrices are the layer's outputs, whatever its geometry."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastinfer.compress.prune import geometry as geometry_module
from fastinfer.compress.prune.modules import layer_geometry
from fastinfer.compress.prune.walk import add_rows, empty_grams

LAYERS = {
    "linear": (nn.Linear(6, 5, bias=False), (4, 3, 6)),
    "1x1": (nn.Conv2d(8, 6, 1, bias=False), (3, 8, 5, 4)),
    "1x1 stride": (nn.Conv2d(8, 6, 1, stride=2, bias=False), (3, 8, 5, 4)),
    "3x3": (nn.Conv2d(4, 6, 3, padding=1, bias=False), (3, 4, 7, 6)),
    "3x3 stride": (nn.Conv2d(4, 6, 3, stride=(2, 1), padding=1, bias=False), (3, 4, 7, 6)),
    "dilated": (nn.Conv2d(4, 6, (3, 2), dilation=(2, 3), padding=(1, 2), bias=False), (2, 4, 9, 8)),
    "grouped": (nn.Conv2d(8, 6, 3, groups=2, stride=2, padding=1, bias=False), (3, 8, 7, 6)),
    "same": (nn.Conv2d(4, 6, (4, 3), padding="same", bias=False), (2, 4, 6, 6)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid", bias=False), (2, 4, 6, 6)),
    "conv1d": (nn.Conv1d(4, 6, 5, stride=2, padding=2, bias=False), (3, 4, 11)),
    "conv1d same": (nn.Conv1d(4, 6, 4, padding="same", dilation=2, bias=False), (3, 4, 11)),
}


@pytest.mark.parametrize("chunk", [2**24, 200])
@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_matrices_are_outputs(name, chunk, monkeypatch):
    monkeypatch.setattr(geometry_module, "CHUNK_ELEMENTS", chunk)
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))
    with torch.no_grad():
        y, geometry = layer(x), layer_geometry(layer)
        matrices = geometry.matrices(layer.weight)
        counted = 0
        for group, rows, wanted in geometry.rows(x, y, layer.weight):
            # Sums of at most 72 float32 products of values below 5.
            torch.testing.assert_close(rows @ matrices[group].t(), wanted, rtol=1e-4, atol=1e-5)
            counted += wanted.numel()
        assert counted == y.numel()
        assert torch.equal(geometry.weight(matrices, layer.weight), layer.weight)


@pytest.mark.parametrize("groups, stride", [(1, 1), (1, 2), (2, 2), (4, 1)])
def test_grams_equal_those_of_unfold(groups, stride):
    layer = nn.Conv2d(8, 12, 3, stride=stride, padding=1, groups=groups, bias=False)
    x = torch.randn(4, 8, 9, 7, generator=torch.Generator().manual_seed(groups))
    with torch.no_grad():
        y = layer(x)
        grams = empty_grams(layer_geometry(layer), layer.weight)
        add_rows(grams, layer_geometry(layer), x, y, layer.weight, 0, 1)
        columns = nn.functional.unfold(x, 3, padding=1, stride=stride)
    assert len(grams) == groups
    c = 8 // groups
    for group, found in enumerate(grams):
        # unfold has (c, kh, kw); weights of sparse kernels go by (kh, kw, c).
        mine = columns.view(4, 8, 9, -1)[:, group * c : (group + 1) * c]
        rows = mine.permute(0, 3, 2, 1).reshape(-1, 9 * c).double()
        wanted = y.chunk(groups, 1)[group].movedim(1, -1).reshape(len(rows), -1).double()
        moments = found.fit.moments(found.held, is_centred=False)
        torch.testing.assert_close(
            moments.hessian, rows.t() @ rows / len(rows), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            moments.cross, wanted.t() @ rows / len(rows), rtol=1e-5, atol=1e-5
        )


def test_a_quarter_is_held_out():
    layer = nn.Linear(4, 3)
    for batches in (1, 2, 4, 9):
        grams = empty_grams(layer_geometry(layer), layer.weight)
        for index in range(batches):
            x = torch.zeros(16, 4)
            add_rows(grams, layer_geometry(layer), x, layer(x), layer.weight, index, batches)
        held, rows = grams[0].held.count, 16 * batches
        assert held + grams[0].fit.count == rows
        assert held == (rows // 4 if batches < 4 else batches // 4 * 16)


def test_padding_that_is_not_zeros_has_no_geometry():
    assert layer_geometry(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")) is None
