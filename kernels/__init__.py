"""Triton kernels, installed as fastinfer.kernels."""
