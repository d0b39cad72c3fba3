"""--shard I/N: only every N-th test, from the I-th; bench/shards.py runs them side by side."""

from __future__ import annotations


def pytest_addoption(parser):
    parser.addoption("--shard", default="0/1", metavar="I/N", help="every N-th test, from the I-th")


def pytest_collection_modifyitems(config, items):
    index, count = map(int, config.getoption("--shard", "0/1").split("/"))
    config.hook.pytest_deselected(items=[t for i, t in enumerate(items) if i % count != index])
    items[:] = items[index::count]
