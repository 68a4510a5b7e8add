.PHONY: demo test lint bench bench-analytics bench-cache bench-limits bench-peers bench-routing bench-scaling bench-signed soak generate dashboards lock clean

PYTHON ?= python3
SOAK_MINUTES ?= 30
BIN := .venv/bin

demo: .venv/ready
	@$(BIN)/millstream demo

# Three files at a time, each with servers of its own: most tests wait. Those that wait most come first.
test: .venv/ready
	@$(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder tests/stack tests/contract tests/golden tests/unit

# Format, lint, types, import rules, generated files and the compose file.
lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m cli.generate --check
	$(BIN)/python -m cli.dashboards --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.kafka.yml

# What an answered request costs, a stored event, a routing decision, and how long an answer from the cache takes.
bench: .venv/ready
	@$(BIN)/python -m benchmarks.spine
	@$(BIN)/python -m benchmarks.sink
	@$(BIN)/python -m benchmarks.routing
	@$(BIN)/python -m benchmarks.cache

bench-analytics: .venv/ready
	@$(BIN)/python -m benchmarks.analytics

bench-signed: .venv/ready
	@$(BIN)/python -m benchmarks.signed

soak: .venv/ready
	@$(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES)

# LiteLLM's proxy and the drawing of plots are in a venv of their own.
bench-peers: .venv/ready
	@benchmarks/peers/install
	@$(BIN)/python -m benchmarks.peers
	@.millstream/peers/bin/python benchmarks/plots.py

bench-cache: .venv/ready
	@$(BIN)/python -m benchmarks.cache

bench-limits: .venv/ready
	@$(BIN)/python -m benchmarks.limits

bench-routing: .venv/ready
	@$(BIN)/python -m benchmarks.routing

bench-scaling: .venv/ready
	@benchmarks/peers/install
	@$(BIN)/python -m benchmarks.scaling
	@.millstream/peers/bin/python benchmarks/plots.py

generate: .venv/ready
	$(BIN)/python -m cli.generate

dashboards: .venv/ready
	$(BIN)/python -m cli.dashboards

lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --extra local --extra dev -o requirements.lock pyproject.toml

clean:
	rm -rf .venv .millstream

.venv/ready: requirements.lock pyproject.toml
	@echo "Building .venv ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch .venv/ready
