#!/bin/sh
# Runs the op tests of the extension that is built here under torch 2.13.0 (CPU), unchanged.
set -eu
python="${1:-python3}"
venv=.venv-abi
if [ ! -f "$venv/.installed" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.13.0 numpy pytest hypothesis rich setuptools
    touch "$venv/.installed"
fi
PYTHONPATH=. "$venv/bin/python" -m pytest tests/ops/test_ops.py -q
