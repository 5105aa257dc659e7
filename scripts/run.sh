#!/usr/bin/env bash
# The main job: sets up .venv when needed, then runs every stage. Arguments are Hydra overrides, for example
#   scripts/run.sh loss.topk=5 loss.temperature=2
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
exec "$python" -m pipeline "$@"
