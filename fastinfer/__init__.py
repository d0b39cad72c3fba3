"""fastinfer: PyTorch models made faster with one call, on kernels of its own."""

from fastinfer.ops.catalog import OPS
from fastinfer.ops.register import register

_library = register(OPS)

from fastinfer import runtime  # noqa: E402  (the compiled kernels need the schemas first)

__version__ = runtime.VERSION
