# Sourced by the other scripts: makes $root/.venv from requirements.lock (exact versions and hashes) and sets $python. It
# does nothing when the environment already belongs to this lock. VENV and LOCK name another environment and lock file.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() { # the first Python 3.10-3.13 that can make a virtual environment
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3.10 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                echo "$candidate"
                return
            fi
            echo "$candidate cannot make virtual environments. Fix: apt-get install python3-venv" >&2
        fi
    done
    cat >&2 <<TXT
No usable Python 3.10, 3.11, 3.12 or 3.13 was found (TensorFlow has no release for others).
Fix: install one, for example   apt-get install python3 python3-venv   (Debian 12),
     brew install python@3.12   (macOS)   or   uv python install 3.12,
     or name one:   PYTHON=/path/to/python3.12 $0
TXT
    return 1
}

venv=$root/${VENV:-.venv}
lock=$root/${LOCK:-requirements.lock}
python=$venv/bin/python
wanted=$(cat "$lock" "$root/requirements-build.lock" "$root/pyproject.toml" | cksum)
if [ "$(cat "$venv/.locked" 2>/dev/null)" != "$wanted" ] || ! "$python" -c '' 2>/dev/null; then
    base=$(find_python) || exit 1
    echo "Setting up $venv with $("$base" --version) (about 3 GB, a few minutes) ..." >&2
    rm -rf "$venv"
    "$base" -m venv "$venv"
    # No resolver and no build isolation: nothing is installed that is not in a lock file.
    pip() { "$python" -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation "$@"; }
    pip --require-hashes -r "$root/requirements-build.lock"
    pip --require-hashes -r "$lock"
    pip --editable "$root"
    echo "$wanted" >"$venv/.locked"
fi
