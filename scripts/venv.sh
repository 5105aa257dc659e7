# Sourced by run.sh and test.sh: makes $root/.venv from requirements.lock (exact versions and hashes) and
# sets $python. Does nothing when the environment already belongs to this lock. No logic of the project's own.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() { # the first Python 3.10-3.13 that can make a virtual environment
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3.10 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                echo "$candidate"
                return
            fi
            echo "$candidate is here, but cannot make virtual environments: apt-get install python3-venv" >&2
        fi
    done
    cat >&2 <<TXT
No usable Python 3.10, 3.11, 3.12 or 3.13 was found (TensorFlow has no release for others).
Mend: install one, for example   apt-get install python3 python3-venv   (Debian 12),
      brew install python@3.12   (macOS)   or   uv python install 3.12,
      or name one:   PYTHON=/path/to/python3.12 $0
TXT
    return 1
}

python=$root/.venv/bin/python
stamp=$root/.venv/.locked
wanted=$(cat "$root/requirements.lock" "$root/requirements-build.lock" "$root/pyproject.toml" | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! "$python" -c '' 2>/dev/null; then
    base=$(find_python) || exit 1
    echo "Setting up $root/.venv with $("$base" --version) (about 3 GB, a few minutes) ..." >&2
    rm -rf "$root/.venv"
    "$base" -m venv "$root/.venv"
    pip() { "$python" -m pip --disable-pip-version-check install --quiet "$@"; }
    # setuptools first, then no build isolation: nothing that is not in a lock runs.
    pip --require-hashes -r "$root/requirements-build.lock"
    pip --require-hashes --no-build-isolation -r "$root/requirements.lock"
    pip --no-deps --no-build-isolation --editable "$root"
    echo "$wanted" >"$stamp"
fi
