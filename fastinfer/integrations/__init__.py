"""Callbacks and adapters for other frameworks; each imports its own only where it is called."""
