"""Triton kernels, installed as fastinfer.kernels.

One op a file: the jit function `_x_kernel`, its launcher `x`, and `x_ref`, the definition of what
the launcher returns in plain PyTorch. Nothing here imports the rest of fastinfer, and nothing there
imports this: without Triton the package is as it was. Imports within are relative, as in a source
tree this folder stands beside the package.
"""
