#!/usr/bin/env bash
# Repeats a published comparison: sets up .venv when needed, then runs conf/reproduce/NAME.yaml, for example
#   scripts/reproduce.sh mq2008 --data /data/MQ2008
# --list shows the names; --help the other arguments.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
exec "$python" -m pipeline.reproduce "$@"
