# Every target sets up .venv in the checkout by itself.
PYTHON ?= python3
BIN := .venv/bin
# Idle OpenMP threads sleep: processes that share two cores would starve each other.
export OMP_WAIT_POLICY ?= PASSIVE
STAMP := .venv/.installed
# The networks of fast style, which tests and the demo read.
STYLES := styles/LICENSE

.PHONY: demo test lint bench tables proto

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[server,load,video]' --group dev
	touch $(STAMP)

$(STYLES): | $(STAMP)
	$(BIN)/pellucid models pull styles

demo: $(STAMP) $(STYLES)  ## Predict and explain three photos; writes demo_output/
	$(BIN)/python examples/demo.py

test: $(STAMP) $(STYLES)  ## Every test, on every core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(STAMP)  ## Style, types and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint proto

bench: $(STAMP) $(STYLES)  ## Speed, as ratios measured in one run
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.methods
	$(BIN)/python -m tests.bench.adaptive
	$(BIN)/python -m tests.bench.attached
	$(BIN)/python -m tests.bench.load
	$(BIN)/python -m tests.bench.optimize
	$(BIN)/python -m tests.bench.stylize
	$(BIN)/python -m tests.bench.style_losses
	$(BIN)/python -m tests.bench.maps
	$(BIN)/python -m tests.bench.index

tables: $(STAMP)  ## The full oracle tables, at the networks' own sizes
	$(BIN)/python -m tests.oracle.tables

proto: $(STAMP)  ## The stubs in client/pellucid/v1 and server/pellucid_server/api/inference
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=client --pyi_out=client \
		--grpc_python_out=client $(wildcard proto/pellucid/v1/*.proto)
	$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=server/pellucid_server/api \
		--pyi_out=server/pellucid_server/api $(wildcard proto/inference/*.proto)
