#!/bin/sh
# Build an environment from requirements/dev.lock with the project itself installed editable, unless it is there.
# Usage: make-venv.sh FOLDER [PYTHON]
set -eu

cd "$(dirname "$0")/.."
root=$(pwd -P)
venv=$1
wanted=${2-}
lock=requirements/dev.lock
# What an environment was built from: compared whole, so that any change builds it again.
lock_stamp=$venv/built-from-lock.txt
project_stamp=$venv/built-from-project.txt

# Names the folder too: a copied environment points at the project it was copied from.
describe_lock() {
    printf 'folder %s\npython %s\n' "$root/$venv" "$1"
    cat "$lock"
}

# What an editable install copies: metadata, entry points and the version.
describe_project() {
    cat pyproject.toml src/safe_triton/_version.py
}

is_current() {
    [ -f "$lock_stamp" ] && [ -x "$venv/bin/python" ] && describe_lock "$1" | cmp -s - "$lock_stamp"
}

if [ -z "$wanted" ] && [ -f "$lock_stamp" ]; then
    python=$(sed -n 's/^python //p' "$lock_stamp")
    is_current "$python" || python=
else
    python=
fi
[ -n "$python" ] || python=$(scripts/find-python.sh "$wanted")

pip() {
    "$venv/bin/python" -m pip -qq --disable-pip-version-check --no-input "$@"
}

if ! is_current "$python"; then
    printf 'building %s with %s from %s (once; about 210 MB are downloaded)\n' "$venv" "$python" "$lock"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    # Wheels only: nothing of a dependency runs while it is installed.
    pip install --require-hashes --only-binary :all: --requirement "$lock"
    describe_lock "$python" >"$lock_stamp"
fi
if ! { [ -f "$project_stamp" ] && describe_project | cmp -s - "$project_stamp"; }; then
    pip install --no-deps --no-build-isolation --no-index --editable .
    describe_project >"$project_stamp"
    printf '%s is ready\n' "$venv"
fi
