#!/usr/bin/env bash
# Sets up .venv when needed, then lint, type check and tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# Not looked for: asserts (for programmers), subprocesses (argument lists of our own, no shell).
"$python" -m bandit --quiet --recursive --skip B101,B404,B603,B607 pipeline scripts
exec "$python" -m pytest "$@"
