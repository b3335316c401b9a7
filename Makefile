# segrl. `make quickstart` and `make test` need git, make and Python 3.11 or newer, nothing else.

VENV  := .venv
STAMP := $(VENV)/.installed
# The first of these that runs, is new enough and can make virtual environments; or `make PYTHON=…`.
CANDIDATES := python3.11 python3 python3.12 python3.13 python3.14
IS_USABLE  := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell $(name) -c '$(IS_USABLE)' >/dev/null 2>&1 && echo $(name))))

DUTS ?= data/DUTS
PYTEST := $(VENV)/bin/python -m pytest
# Files of tests are shared out among as many processes as there are cores; `make test JOBS=1` runs one after the other.
JOBS ?= auto
SHARED_OUT := -n $(JOBS) --dist loadfile
export PYTHONUNBUFFERED := 1

.PHONY: help install quickstart unit test test-long check attack audit proof turns segmenter photographs bench gpu-check docs clean

help:
	@echo 'make quickstart   install, then improve the shipped tiny policy and write a report'
	@echo 'make unit         the tests that train nothing and start nothing: a minute'
	@echo 'make test         install, then every check that needs no GPU'
	@echo 'make test-long    the full forms of what make test shortens'
	@echo 'make attack       hostile requests to the servers, with good clients beside'
	@echo 'make audit        known vulnerabilities of the tested versions; needs a network'
	@echo 'make proof        reinforcement learning beside its controls, three seeds: writes docs/proof.md'
	@echo 'make turns        does a policy that sees its mask correct it? writes docs/turns_proof.md'
	@echo 'make segmenter    the tiny segmenter from nothing, on DUTS=FOLDER: hours; started again, it goes on'
	@echo 'make photographs  the policy for photographs and its controls, on DUTS=FOLDER and ECSSD=FOLDER: hours, resumable'
	@echo 'make bench        the speed of the mask reward and of the update beside the plain path: writes bench/*.json'
	@echo 'make gpu-check    what segrl does on this GPU, in at most 8 minutes: writes docs/gpu.md'
	@echo 'make docs         the documentation as a site in site/, for any browser, without a network'
	@echo 'make install      the environment in .venv alone'

install: $(STAMP)

# Pins are constraints: they fix the versions that were tested and install nothing by themselves.
$(STAMP): pyproject.toml requirements/tested.txt
	@test -n "$(PYTHON)" || { echo 'segrl needs Python 3.11 or newer with its venv module: install it, or name it with make PYTHON=…' >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --constraint requirements/tested.txt --editable '.[dev,docs,web]'
	@touch $(STAMP)

quickstart: install
	$(VENV)/bin/segrl quickstart

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

unit: install
	$(PYTEST) $(SHARED_OUT) tests/unit

test: check
	$(PYTEST) $(SHARED_OUT)

# Hostile requests to the three servers on loopback, good clients beside, twenty rounds: a quarter of an hour. One round is
# in make test.
attack: install
	$(PYTEST) -s tests/e2e/test_attack.py -m 'long or not long' --timeout 3600

# The tested versions beside the published vulnerabilities; needs a network.
audit: install
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	$(VENV)/bin/python -m pip_audit --requirement requirements/tested.txt --no-deps --disable-pip --strict

test-long: check
	$(PYTEST) -m 'not gpu' --hypothesis-profile full --timeout 7200

# Three seeds of reinforcement learning beside their controls; resumes where it was stopped.
proof: install
	$(VENV)/bin/python proof/run.py --out runs/proof --page docs/proof.md

# The cold start of turns from the policy's own answers, then GRPO over turns beside one turn, three seeds; resumes
# where it was stopped.
turns: install
	$(VENV)/bin/segrl eval --dataset tiny n=16384 seed=21 'kinds=[colour_shape, pair]' --policy tiny --temperature 1 \
		--seed 21 --batch-size 128 --max-new-tokens 104 --out runs/tiny_answers
	$(VENV)/bin/segrl train recipes/tiny_turns.yaml --out runs/tiny_turns
	$(VENV)/bin/python proof/turns.py --cold runs/tiny_turns/correct/model --out runs/turns_proof --page docs/turns_proof.md

# Trains the segmenter that ships, on DUTS-TR, and puts its weights into the package; resumes where it was stopped.
segmenter: install
	$(VENV)/bin/python proof/segmenter.py train --data $(DUTS) --out runs/segmenter
	$(VENV)/bin/python proof/segmenter.py ship runs/segmenter --data $(DUTS)

# The policy for photographs by Seg-R1's stages, beside its controls: writes docs/photographs.md; resumes.
photographs: install
	$(VENV)/bin/python proof/photographs.py run --duts $(DUTS) $(if $(ECSSD),--ecssd $(ECSSD)) --out runs/photographs --page docs/photographs.md

# Ratios are measured side by side; leave the machine to it.
bench: install
	$(VENV)/bin/python bench/run.py
	$(VENV)/bin/python bench/update.py
	$(VENV)/bin/python bench/rollout.py
	$(VENV)/bin/python bench/cpu.py
	$(VENV)/bin/python bench/answers.py

# Needs CUDA, and no download.
gpu-check: install
	$(VENV)/bin/python bench/gpu_check.py

# Pages under reference/ are made from the code.
docs: install
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .hypothesis
