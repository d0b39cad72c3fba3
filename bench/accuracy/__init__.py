"""The parts of bench_accuracy: cells, the work of one, timing, pictures."""
