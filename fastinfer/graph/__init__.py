"""Capturing a model as a graph, and reading and rewriting that graph."""
