PYTHON ?= python3
PIP = -m pip --disable-pip-version-check -q install
MANIFESTS = pyproject.toml $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test check docs gpu bench real-llamacpp clean

demo: .venv/.made ## install VeloLLM with llama.cpp, then let it plan, measure and judge
	.venv/bin/velollm autopilot --yes

test: .venv-dev/.made ## make the development environment and pass the whole suite
	.venv-dev/bin/python -m pytest

check: .venv-dev/.made ## lint, format and types only
	.venv-dev/bin/ruff check . && .venv-dev/bin/ruff format --check . && .venv-dev/bin/mypy

docs: .venv-dev/.made ## write what is generated in docs/
	.venv-dev/bin/python scripts/docs.py

gpu: .venv-dev/.made ## the tests that need an NVIDIA GPU, then the engine's bench, part by part
	.venv-dev/bin/python -m pytest -m gpu --run-gpu
	for part in kernels prefill e2e-1b e2e-8b e2e-0.6b host online; do .venv-dev/bin/velollm cuda bench $$part || exit 1; done

bench: .venv-dev/.made ## the bars that are given in seconds
	.venv-dev/bin/python benchmarks/startup.py
	.venv-dev/bin/python benchmarks/engine_host.py
	.venv-dev/bin/python benchmarks/wire.py
	.venv-dev/bin/python benchmarks/serving_front.py
	.venv-dev/bin/python benchmarks/generator.py

real-llamacpp: .venv-dev/.made ## build a llama-server to test against (several minutes)
	sh plugins/velollm-llamacpp/scripts/real-llamacpp.sh

.venv/.made: $(MANIFESTS)
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) --no-compile -e . -e plugins/velollm-llamacpp
	touch $@

.venv-dev/.made: $(MANIFESTS) requirements-dev.txt
	$(PYTHON) -m venv .venv-dev
	.venv-dev/bin/python $(PIP) -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .venv-dev .mypy_cache .pytest_cache .ruff_cache
