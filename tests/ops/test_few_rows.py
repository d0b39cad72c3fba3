"""Up to how many rows a sparse image is faster than tiles, by estimate."""

from __future__ import annotations

import pytest
from fastinfer._C import few_rows_most

NEAR, FAR = 512, 4096
#: Channels of a panel, quads of 64 inputs of which 8 are kept, cycles of a quad: shared or not.
SHARED, ALONE = (32, 2, 1.5), (16, 2, 1.0)


def tiles(size):
    """Return bytes, and cycles of a row's products and results, of size inputs and outputs."""
    vectors = size // 16
    return size * size, 0.08 * vectors * size / 4, 3.0 * vectors


def sparse(size, pattern, kept=1.0):
    """Return bytes, panels, quads, cycles of a quad and of what else a row takes."""
    width, quads, cycles = pattern
    panels, steps = size // width, size // 64
    count = int(panels * steps * quads * kept)
    return (
        count * (64 + width * 4) + panels * (steps + 4), panels, count, cycles,
        panels * (0.5 * steps + 6.0 * width / 16),
    )  # fmt: skip


def test_it_is_what_was_measured():
    """Granite Rapids: 512 x 512 breaks even at 14 rows from L2, 4096 x 4096 beyond 64."""
    assert 6 <= few_rows_most(tiles(NEAR), sparse(NEAR, SHARED)) <= 14
    assert 40 <= few_rows_most(tiles(FAR), sparse(FAR, SHARED)) <= 64
    assert few_rows_most(tiles(FAR), sparse(FAR, ALONE)) >= 20


@pytest.mark.parametrize("size", [NEAR, FAR])
@pytest.mark.parametrize("pattern", [SHARED, ALONE])
def test_more_zeros_serve_more_rows(size, pattern):
    found = [few_rows_most(tiles(size), sparse(size, pattern, n / 4)) for n in range(1, 20)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] == 0


def test_an_image_that_saves_few_bytes_is_not_kept():
    most_bytes = tiles(FAR)[0] * 6 // 10
    _, *rest = sparse(FAR, SHARED)
    assert few_rows_most(tiles(FAR), (most_bytes, *rest)) > 0
    assert few_rows_most(tiles(FAR), (most_bytes + 1, *rest)) == 0


def test_there_is_a_last_row():
    assert few_rows_most(tiles(FAR), (0, 0, 0, 0.0, 0.0)) == 64
    assert few_rows_most((64, 0.0, 0.0), (0, 1, 1, 1.0, 1.0)) == 0
