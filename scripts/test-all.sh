#!/bin/sh
# Run all tests on every supported Python that is found, each in an environment of its own, and print one line for each.
# Usage: test-all.sh [pytest arguments]
#   NUMPY=version   run the unit, property and fake tests under this numpy instead, beside what the lock has; without the
#                   real server, whose stub is bound to numpy 1
set -u
numpy=${NUMPY-}

cd "$(dirname "$0")/.." || exit 2
found=$(scripts/find-python.sh --all)
if [ -z "$found" ]; then
    scripts/find-python.sh
    exit 2
fi

# Build the environment and run the tests: run VERSION PYTHON [pytest arguments]
run() {
    venv=.venv-$1${numpy:+-numpy-$numpy}
    scripts/make-venv.sh "$venv" "$2" || return
    shift 2
    if [ -z "$numpy" ]; then
        "$venv/bin/python" -m pytest --no-fold-skipped "$@"
    else
        "$venv/bin/python" -m pip -qq --disable-pip-version-check --no-input install --only-binary :all: "numpy==$numpy" &&
            "$venv/bin/python" -m pytest --no-fold-skipped -m 'not triton' tests/unit tests/property tests/conformance "$@"
    fi
}

summary=
status=0
for version in 3.10 3.11 3.12 3.13; do
    python=$(printf '%s\n' "$found" | sed -n "s/^$version //p")
    if [ -z "$python" ]; then
        summary="$summary
python $version: not found"
        continue
    fi
    name="python $version${numpy:+, numpy $numpy}"
    printf '\n== %s: %s\n' "$name" "$python"
    if run "$version" "$python" "$@"; then
        summary="$summary
$name: passed"
    else
        summary="$summary
$name: FAILED"
        status=1
    fi
done
printf '%s\n' "$summary"
exit "$status"
