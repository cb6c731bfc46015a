#!/bin/sh
# Write requirements/dev.lock and release.lock: locks with hashes, each valid on every supported Python and platform.
# Usage: lock.sh PYTHON [uv options, for example --upgrade or --upgrade-package numpy]
set -eu

uv_version=0.13.9
python=$1
shift

cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT INT TERM

"$python" -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"

# Settings of the machine must not reach the lock: no configuration file, no index or cache from the environment.
for name in $(env | sed -n 's/^\(UV_[A-Z0-9_]*\)=.*/\1/p;s/^\(PIP_[A-Z0-9_]*\)=.*/\1/p'); do
    unset "$name"
done

compile() {
    output=$1
    shift
    "$tools/venv/bin/uv" pip compile --quiet --no-config --python "$python" \
        --universal --python-version 3.10 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
        --output-file "$output" "$@"
    if grep -n -E '://|^-|file:|@ ' "$output"; then
        echo "lock: the lines above name a machine or an index; a lock holds names, versions and hashes" >&2
        exit 1
    fi
    echo "$output: $(grep -c == "$output") packages"
}

compile requirements/dev.lock --extra dev pyproject.toml requirements/dev.in "$@"
compile requirements/release.lock requirements/release.in "$@"
