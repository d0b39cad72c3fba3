"""The demonstration: MobileNetV2 with ImageNet weights on labelled photos."""

from fastinfer.demo.photos import DemoDataError
from fastinfer.demo.results import DemoResult, check_bars, render_table
from fastinfer.demo.run import DemoOptions, run_demo, write_results

__all__ = [
    "DemoDataError",
    "DemoOptions",
    "DemoResult",
    "check_bars",
    "render_table",
    "run_demo",
    "write_results",
]
