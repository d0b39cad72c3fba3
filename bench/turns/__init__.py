"""Contenders in processes of their own, timed in turns: for bench_peers and bench_gpu_models."""
