"""The engine: regions of a model as one op each."""

from fastinfer.engine.binding import Source
from fastinfer.engine.region_module import RegionModule

__all__ = ["RegionModule", "Source"]
