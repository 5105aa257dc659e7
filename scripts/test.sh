#!/usr/bin/env bash
# Sets up .venv when needed, then runs lint, type check and the tests without tests/trust, the documentation and the slow ones. --all runs every test; other arguments go to pytest:
#   scripts/test.sh --all
#   scripts/test.sh tests/losses -k ties
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# Skipped: asserts (for programmers), subprocesses (argument lists of our own, no shell).
"$python" -m bandit --quiet --recursive --skip B101,B404,B603,B607 pipeline scripts
case ${1:-} in
--all) set -- tests -n 2 --dist worksteal "${@:2}" ;;
"") set -- tests --ignore tests/trust --ignore tests/test_docs.py --ignore tests/training/test_multi_worker.py -m "not slow" -n 2 --dist worksteal ;;
esac
exec "$python" -m pytest "$@"
