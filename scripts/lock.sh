#!/usr/bin/env bash
# Makes requirements.lock: exact versions and hashes of everything in pyproject.toml, for Python 3.10-3.13,
# without the address of any package index. Run it after a change of the dependencies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet uv
"$tools/venv/bin/uv" pip compile pyproject.toml --extra test --universal --python-version 3.10 \
    --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
    --custom-compile-command scripts/lock.sh --output-file requirements.lock "$@"
# What builds this package itself and the one dependency that ships no wheel.
printf 'setuptools\n' | "$tools/venv/bin/uv" pip compile - --universal --python-version 3.10 \
    --generate-hashes --no-emit-index-url --no-emit-find-links --quiet \
    --custom-compile-command scripts/lock.sh --output-file requirements-build.lock "$@"
