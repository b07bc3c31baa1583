# The README's two commands, `make demo` and `make test`, share one .venv, which
# they make and fill on a machine that has only Python, pip, make and git.

PYTHON ?= python3
VENV := .venv/bin

.PHONY: help demo test docs wheel format pins clean

help:  ## List what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo: .venv/ready  ## Distil a teacher into a small student (under three minutes)
	@$(VENV)/python experiments/distill.py \
	  --config configs/hinton2015_soft_targets.py --workdir runs/demo

test: .venv/ready  ## Run the linter, the tests, and the checks of what is generated
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/python -m jaxkd.losses._docs --check
	$(VENV)/python -m jaxkd.report --check
	$(VENV)/python -m pytest --numprocesses 2 --dist worksteal

docs: .venv/docs  ## Build the site in docs/_build/html, its notebooks run anew
	$(VENV)/python -m sphinx --builder html --fresh-env --fail-on-warning \
	  --keep-going --quiet docs docs/_build/html

wheel: .venv/ready  ## Build a wheel, install it where nothing is, and run it there
	rm -rf build dist && mkdir dist
	$(VENV)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .
	$(PYTHON) -m venv --without-pip dist/empty
	$(PYTHON) -m pip --python dist/empty/bin/python install -qq \
	  -c requirements.txt dist/*.whl
	cd dist && empty/bin/jaxkd distill --workdir run \
	  --config hinton2015_soft_targets:tiny
	cd dist && empty/bin/jaxkd report compare run

format: .venv/ready  ## Format the code and mend what the linter can
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

pins:  ## Renew both requirements.txt (needs Python 3.11 and 3.12, both with pip)
	$(PYTHON) tools/pins.py python3.11 python3.12

clean:  ## Remove all that was made here, but not runs/
	rm -rf .venv .cache .ruff_cache build dist docs/_build *.egg-info

# The environment is filled anew only when the pins change. It starts without
# pip, since Debian's Python cannot put it there; the one outside does.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
.venv/ready: requirements.txt
	@$(PYTHON) $(NEW_ENOUGH) 2>/dev/null || { echo "jaxkd needs Python 3.11 or\
	 later, which $(PYTHON) is not; name one that is, as in:\
	 make $(or $(MAKECMDGOALS),test) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "jaxkd is set up with\
	 pip, which $(PYTHON) lacks: install it (Debian and Ubuntu: apt install\
	 python3-pip) or name another Python with PYTHON=..." >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version): about a minute, once"
	@$(VENV)/python $(NEW_ENOUGH) 2>/dev/null \
	  || $(PYTHON) -m venv --clear --without-pip .venv
	@$(PYTHON) -m pip --python $(VENV)/python install -qq -c requirements.txt \
	  pip setuptools
	@$(VENV)/python -m pip install -qq --no-build-isolation \
	  -r requirements.txt -e .
	@touch $@

.venv/docs: .venv/ready docs/requirements.txt
	@$(VENV)/python -m pip install -qq -c requirements.txt \
	  -r docs/requirements.txt
	@touch $@
