# Everything a fresh machine needs: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check format clean bench-annotate bench-collect bench-label bench-train docs release-check interop

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Benchmarks: by hand, on a quiet machine; they print ratios. ARGS passes flags on.
bench-collect: $(INSTALLED)
	$(BIN)/python benchmarks/collect.py $(ARGS)

bench-annotate: $(INSTALLED)
	$(BIN)/python benchmarks/annotate.py $(ARGS)

bench-label: $(INSTALLED)
	$(BIN)/python benchmarks/label.py $(ARGS)

bench-train: $(INSTALLED)
	$(BIN)/python benchmarks/train.py $(ARGS)

# The documentation site, into .site/.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# What a release must pass: builds, contents, and the whole job in empty environments outside the repository.
release-check: $(INSTALLED)
	$(BIN)/python tools/release_check.py $(ARGS)

# imitation, d3rlpy and torchrl load what we write, in environments of their own; their output goes into docs/interop.md.
interop: $(INSTALLED)
	$(BIN)/python tools/interop.py $(ARGS)

# The simulators' packages pin versions that no current Python installs: they come last, without their dependencies;
# then a browser for the test of the annotation page, where npm is at hand.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps safety-gymnasium==1.0.0 \
		bullet-safety-gym==1.4.0
	-sh tests/install_browser.sh .venv/browser
	touch $@

clean:
	rm -rf .venv demo
