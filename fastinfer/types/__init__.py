"""Value types: the vocabulary everyone may read; it reads nobody."""

from fastinfer.types.epilogue import Activation, Epilogue
from fastinfer.types.quant import QuantConfig, QuantSpec, TensorQuant

__all__ = ["Activation", "Epilogue", "QuantConfig", "QuantSpec", "TensorQuant"]
