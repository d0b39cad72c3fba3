"""The engine: regions of a model as one op each."""

from fastinfer.engine.region_module import RegionModule, Source

__all__ = ["RegionModule", "Source"]
