"""Whole networks on a GPU, each contender in a process of its own."""
