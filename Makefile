# Two commands: `make demo` builds a small captioned dataset, `make test` runs everything that CI runs.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN := runs/demo
# Two processes of tests share two cores: a thread each, and Ray's workers, which are nice, must not wait for the other.
TWO_AT_ONCE := OMP_NUM_THREADS=1 RAY_worker_niceness=0

.PHONY: demo test setup lint browser wheel clean

demo: $(READY)
	@$(BIN)/densefusion run demo --run-dir $(RUN)

test: $(READY) browser lint
	$(TWO_AT_ONCE) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

setup: $(READY)

# Stale means: the interpreter is gone, or what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo "Python 3.11 or 3.12 is needed; say which with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@echo "Installing pinned packages into $(VENV) (several GB, minutes; once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,dev,train]'
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The report is tested in a real browser where there is one, or where one can be installed without asking.
browser:
	@command -v chromium >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    echo "Installing chromium for the browser tests ..."; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null; \
	  else echo "No chromium here: the browser tests will be skipped."; fi; }

wheel: $(READY)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info runs
