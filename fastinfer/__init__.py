"""fastinfer: PyTorch models made faster with one call, on kernels of its own."""

from fastinfer.ops.catalog import OPS
from fastinfer.ops.int8_region import BOUND_REGION_SCHEMAS
from fastinfer.ops.register import register

_library = register(OPS, BOUND_REGION_SCHEMAS)

# The compiled kernels and the passes need the schemas above.
from fastinfer.allocation import prune  # noqa: E402
from fastinfer.api import convert  # noqa: E402
from fastinfer.artifact import ArtifactError, load, save  # noqa: E402
from fastinfer.compress.batch_norm import reestimate_batch_norm  # noqa: E402
from fastinfer.compress.distill import distill, finetune, reconstruct  # noqa: E402
from fastinfer.compress.prune import (  # noqa: E402
    CubicSchedule,
    GradualPruner,
    hold_masks,
    pruning_report,
)
from fastinfer.compress.prune.channels import channel_report, prune_channels  # noqa: E402
from fastinfer.compress.prune.low_rank import low_rank_report  # noqa: E402
from fastinfer.config import Config, UnsupportedError  # noqa: E402
from fastinfer.low_rank import factorize  # noqa: E402
from fastinfer.measure import benchmark, compare  # noqa: E402
from fastinfer.report import Report, report  # noqa: E402
from fastinfer.runtime import VERSION, info, isa, set_isa, show_ops, supported_isas  # noqa: E402

__version__ = VERSION
__all__ = [
    "ArtifactError",
    "Config",
    "CubicSchedule",
    "GradualPruner",
    "Report",
    "UnsupportedError",
    "benchmark",
    "channel_report",
    "compare",
    "convert",
    "distill",
    "factorize",
    "finetune",
    "hold_masks",
    "info",
    "isa",
    "load",
    "low_rank_report",
    "prune",
    "prune_channels",
    "pruning_report",
    "reconstruct",
    "reestimate_batch_norm",
    "report",
    "save",
    "set_isa",
    "show_ops",
    "supported_isas",
]
