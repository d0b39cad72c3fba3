"""The engine: regions of a model as one op each, and whole calls as CUDA graphs."""

from fastinfer.engine.binding import Source
from fastinfer.engine.cuda_graphs import CudaGraphs
from fastinfer.engine.cuda_recorder import CudaRecorder
from fastinfer.engine.region_module import RegionModule

__all__ = ["CudaGraphs", "CudaRecorder", "RegionModule", "Source"]
