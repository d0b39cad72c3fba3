"""The processes of bench_gpu_models: one prepares and times one model."""
