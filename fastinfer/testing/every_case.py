"""All cases of all ops."""

from __future__ import annotations

from fastinfer.testing.case import Case
from fastinfer.testing.cases import cases
from fastinfer.testing.cases_columns import column_cases
from fastinfer.testing.cases_depthwise import depthwise_cases
from fastinfer.testing.cases_groups import group_cases
from fastinfer.testing.cases_islands import island_op_cases, island_programs
from fastinfer.testing.cases_region import region_cases
from fastinfer.testing.cases_rows import float_upsample_cases, mean_cases, row_cases
from fastinfer.testing.cases_sparse import sparse_cases
from fastinfer.testing.cases_sparse_float import sparse_float_cases
from fastinfer.testing.cases_text import text_programs
from fastinfer.testing.cases_tiles import tile_cases
from fastinfer.testing.cases_views import view_cases
from fastinfer.testing.cases_winograd import winograd_cases


def every_case() -> list[Case]:
    """Return every case, each with a label of its own."""
    return [
        *cases(),
        *column_cases(),
        *depthwise_cases(),
        *tile_cases(),
        *group_cases(),
        *sparse_cases(),
        *sparse_float_cases(),
        *row_cases(),
        *mean_cases(),
        *float_upsample_cases(),
        *region_cases(),
        *island_programs(),
        *island_op_cases(),
        *text_programs(),
        *view_cases(),
        *winograd_cases(),
    ]
