#!/bin/sh
# Run the tests that reach every package under branch coverage, in child processes too, and hold each package to its
# floor. What was measured is kept in build/coverage, as pages in build/coverage/html.
# Usage: coverage.sh VENV [pytest arguments]
set -eu

cd "$(dirname "$0")/.."
python=$1/bin/python
shift

rm -rf build/coverage
mkdir -p build/coverage
# Two processes, since a worker of pytest-xdist may end before it has written what it measured. Of the tests on the real
# server, those whose commands and supervision run in a process that can be measured.
"$python" -m coverage run -m pytest -q tests/unit tests/property "$@" >build/coverage/unit.log 2>&1 &
unit=$!
failed=
"$python" -m coverage run -m pytest -q tests/conformance tests/triton/test_supervision*.py tests/triton/test_serve.py \
    tests/triton/test_serve_gateway.py tests/triton/test_learn.py tests/triton/test_gateway_alone.py \
    tests/triton/test_server.py tests/triton/test_server_ends.py tests/triton/test_plugin.py "$@" || failed=yes
wait "$unit" || failed=yes
cat build/coverage/unit.log
"$python" -m coverage combine --quiet
"$python" -m coverage json --quiet -o build/coverage/report.json
"$python" -m coverage html --quiet -d build/coverage/html
"$python" scripts/coverage_gate.py build/coverage/report.json || failed=yes
[ -z "$failed" ]
