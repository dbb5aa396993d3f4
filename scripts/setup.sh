#!/usr/bin/env bash
# Make .venv: everything that `make demo`, `make test` and `make lint` need.
#
#     PYTHON=python3.12 scripts/setup.sh
#
# Run again, it brings an existing .venv up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# An existing .venv is kept, whichever Python made it; asking for another one is an error,
# for a .venv may hold what somebody put there by hand.
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }
python="${PYTHON:-python3}"
if [[ -x .venv/bin/python ]]; then
  have="$(version .venv/bin/python)"
  if [[ -n "${PYTHON:-}" && "$(version "$python")" != "$have" ]]; then
    echo "setup: .venv was made with Python $have, not with '$python': make clean first." >&2
    exit 1
  fi
  python=.venv/bin/python
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
  echo "setup: hrviewer needs Python 3.11, 3.12 or 3.13; '$python' is none of them." >&2
  echo "       Choose another one: make PYTHON=python3.12 …" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "setup: '$python' cannot make virtual environments (on Debian: apt-get install python3-venv)." >&2
  exit 1
fi

scripts/system.sh

# Errors only: `pip check` at the end says whether all fits together.
pip_install() {
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@"
}

if [[ ! -x .venv/bin/python ]]; then
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi

# `--group` came with pip 25.1.
pip_install --upgrade 'pip>=25.1'

# torch alone and first. Installed with the rest, pip may prefer a build for CUDA
# (gigabytes) to a CPU build that is at hand; one that is already here is kept.
echo "setup: installing torch"
pip_install -c constraints.txt torch

editable=(-e ".[qt,slides,onnx,openvino]")
for project in sample_data/pyproject.toml plugins/*/pyproject.toml; do
  # The template is there to be copied.
  if [[ -e "$project" && "$project" != plugins/template/* ]]; then
    editable+=(-e "$(dirname "$project")")
  fi
done
echo "setup: installing hrviewer, its plug-ins and the development tools"
pip_install -c constraints.txt "${editable[@]}" --group dev

.venv/bin/python -m pip check >/dev/null || {
  echo "setup: some installed packages do not fit together:" >&2
  .venv/bin/python -m pip check >&2 || true
}
echo "setup: done"
