#!/bin/sh
# Run all tests on every supported Python that is found, each in an environment of its own, and print one line for each.
# Usage: test-all.sh [pytest arguments]
set -u

cd "$(dirname "$0")/.." || exit 2
found=$(scripts/find-python.sh --all)
if [ -z "$found" ]; then
    scripts/find-python.sh
    exit 2
fi

summary=
status=0
for version in 3.10 3.11 3.12 3.13; do
    python=$(printf '%s\n' "$found" | sed -n "s/^$version //p")
    if [ -z "$python" ]; then
        summary="$summary
python $version: not found"
        continue
    fi
    printf '\n== python %s: %s\n' "$version" "$python"
    if scripts/make-venv.sh ".venv-$version" "$python" && ".venv-$version/bin/python" -m pytest --no-fold-skipped "$@"; then
        summary="$summary
python $version: passed"
    else
        summary="$summary
python $version: FAILED"
        status=1
    fi
done
printf '%s\n' "$summary"
exit "$status"
