# `make` lists the targets. Each of them sets up .venv by itself.
PYTHON  ?= python3
PROFILE ?= quick
PORT    ?= 8000
# The release of PyTorch that `make constraints` pins.
TORCH   ?= 2.13.0

BIN        := .venv/bin
INSTALLED  := .venv/.installed
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# After a failed build, all pages are read again: an incremental one would not repeat the warnings.
JB_BUILD   := $(BIN)/jupyter-book build executed --config _config.yml --path-output . -W -n --keep-going
DISCARD    := { rm -rf _build/.doctrees; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help book browser claim pdf test unit lint lab serve clean constraints assets notebooks readme

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14
	@echo
	@echo "PROFILE=quick|full scales the notebooks; PYTHON=... chooses the interpreter (3.11 or newer)."

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e ".[book,test]"
	@touch $@

assets: $(INSTALLED)
	$(BIN)/recsys-cl assets fetch

notebooks: $(INSTALLED) assets
	$(BIN)/python book/_ext/execute.py --profile $(PROFILE)

book: notebooks ## execute the notebooks that are not up to date and build the book
	$(JB_BUILD) || $(DISCARD)
	@$(BIN)/python -c 'import pathlib; print("Open", pathlib.Path("_build/html/index.html").resolve().as_uri())'

unit: $(INSTALLED) assets ## run the unit tests and the examples in docstrings
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --ignore=tests/browser tests recsys_cl

browser: $(INSTALLED) ## open every page of the built book in Chromium, without a network
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 tests/browser

claim: $(INSTALLED) assets ## run the comparisons of one claim again: make claim ID=beats-pointwise
	$(ONE_THREAD) $(BIN)/python experiments/claim.py $(ID)

pdf: book ## print the built book into _build/recsys_cl.pdf
	$(BIN)/python book/_ext/pdf.py

test: ## run the unit tests, execute every notebook, build the whole book strictly and open it in a browser
	$(MAKE) --no-print-directory unit
	$(MAKE) --no-print-directory notebooks
	$(JB_BUILD) --all --quiet || $(DISCARD)
	$(MAKE) --no-print-directory browser
	@echo "unit tests, notebooks, book and browser: all passed"

lint: $(INSTALLED) ## check format, style, types, spelling, and the sources of the book
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id book/*.ipynb
	$(BIN)/python book/_ext/lint.py
	$(BIN)/codespell

readme: $(INSTALLED) ## write the table of results into README.md
	$(BIN)/python book/_ext/readme.py

lab: $(INSTALLED) assets ## open the notebooks in JupyterLab
	RECSYS_CL_PROFILE=$(PROFILE) $(BIN)/jupyter-lab --notebook-dir=book

serve: book ## serve the built book on localhost
	@echo "http://127.0.0.1:$(PORT)/"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

constraints: ## renew constraints.txt from the newest versions that pyproject.toml allows
	rm -rf .venv-constraints
	$(PYTHON) -m venv .venv-constraints
	echo "torch==$(TORCH)" > .venv-constraints/torch.txt
	.venv-constraints/bin/pip install --quiet -c .venv-constraints/torch.txt -e ".[bench,book,test]"
	echo "# Exact versions of everything that .[bench,book,test] installs; renew with: make constraints" > constraints.txt
	.venv-constraints/bin/pip freeze --exclude-editable \
		| sed -E 's/\+[[:alnum:].]+$$//' | grep -vE '^(nvidia-|cuda-|triton)' >> constraints.txt
	rm -rf .venv-constraints

clean: ## remove everything that was built; the environment and the downloaded assets stay
	rm -rf executed _build build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
