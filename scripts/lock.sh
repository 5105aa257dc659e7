#!/usr/bin/env bash
# Makes the locks: exact versions and hashes of everything in pyproject.toml, for Python 3.10-3.13, without the
# address of any package index. Run it after a change of the dependencies.
#   requirements.lock        development: with the tests' packages (scripts/venv.sh)
#   requirements-cpu.lock    the image: with joblib and ONNX, without the tests' packages; requirements-gpu.lock the same with CUDA
#   requirements-tpu.lock    for a TPU VM with Python 3.11, installed with --no-deps: tensorflow-tpu in tensorflow's place
#   requirements-build.lock  what builds this package itself and the one dependency that ships no wheel
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet uv
lock() { # lock FILE ARGUMENTS...
    "$tools/venv/bin/uv" pip compile --universal --python-version 3.10 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --quiet --custom-compile-command scripts/lock.sh \
        --output-file "$@"
}
lock requirements.lock pyproject.toml --extra test "$@"
# Constrained: the image has the versions that the tests ran with.
lock requirements-cpu.lock pyproject.toml --constraints requirements.lock --extra joblib --extra onnx
lock requirements-gpu.lock pyproject.toml --constraints requirements.lock --extra joblib --extra onnx --extra gpu
printf 'setuptools\n' | lock requirements-build.lock - "$@"
# Only resolved: what is in here is installed on a TPU VM alone. tensorflow-tpu ends at 2.20.
printf 'tensorflow ; sys_platform == "never"\n' >"$tools/overrides"
printf '%s\n' tensorflow-tpu==2.20.0 'tf-keras==2.20.*' 'tensorboard==2.20.*' 'tensorflow-serving-api==2.20.*' 'setuptools<81' |
    "$tools/venv/bin/uv" pip compile pyproject.toml - --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
        --overrides "$tools/overrides" --generate-hashes --no-emit-index-url --no-emit-find-links --quiet --no-annotate \
        --custom-compile-command scripts/lock.sh --output-file requirements-tpu.lock "$@"
