# make table | make test: both set up what they need first. TORCH chooses the build of torch and vLLM.
TORCH ?= cpu
UV_VERSION := 0.13.8
VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
LOCK := requirements/linux-x86_64-py311.lock
STAMP := $(VENV)/.set-up-$(TORCH)
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)

# uv's CPU backend takes torch from PyTorch's own index. Where pip is told of a folder of wheels
# (PIP_FIND_LINKS, as on machines without the internet), that folder comes first.
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
BACKEND :=
else
BACKEND := --torch-backend=cpu
endif

# Containers tend to set it; then each of hundreds of processes compiles torch's and vLLM's source anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup table test slow torture docs-test lint lock clean

setup: $(STAMP)

$(VENV)/bin/uv:
	$(BASE_PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet uv==$(UV_VERSION)

ifeq ($(TORCH),cpu)
$(STAMP): $(VENV)/bin/uv $(LOCK)
	$(UV) pip install --quiet --python $(PYTHON) $(BACKEND) torch==2.13.0
	$(PYTHON) -c "import torch, sys; sys.exit(torch.version.cuda and 'this torch is a CUDA build: see TORCH in the README')"
	$(UV) pip install --python $(PYTHON) --no-deps --require-hashes -r $(LOCK)
	$(UV) pip install --quiet --python $(PYTHON) --no-deps -e .
	rm -f $(VENV)/.set-up-* && touch $@
else ifeq ($(TORCH),cuda)
$(STAMP): $(VENV)/bin/uv pyproject.toml
	$(UV) pip install --python $(PYTHON) --no-config --torch-backend=auto \
	  --excludes requirements/gpu-excludes.txt -e '.[gpu,ray,loggers,launchers,viewer,dev]'
	rm -f $(VENV)/.set-up-* && touch $@
else
$(error TORCH is cpu or cuda, not $(TORCH))
endif

table: $(STAMP)
	$(PYTHON) train.py experiments=step_by_step

# Tests side by side share the cores: each stage takes one thread.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 3 --dist worksteal

slow: $(STAMP)
	$(PYTHON) -m pytest -m slow

torture: $(STAMP)
	$(PYTHON) -m pytest -m torture

# The documentation's commands, and its examples in a copy of the project.
docs-test: $(STAMP)
	$(PYTHON) -m pytest tests/docs -m "slow or not slow"

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

lock:
	$(UV) pip compile pyproject.toml --extra cpu --extra ray --extra loggers --extra launchers \
	  --extra viewer --extra dev --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-package torch \
	  --no-annotate --no-header --quiet -o $(LOCK)
	sed -i '1i # Python 3.11, Linux x86-64, CPU. Made by "make lock"; torch is installed before it (see Makefile).' $(LOCK)

clean:
	rm -rf $(VENV)
