#!/bin/sh
# Build the wheel, install it into an environment in place of the editable source, and remove the source: what the tests
# then import is what users get. Usage: install-wheel.sh VENV (in a clone that may lose its src folder)
set -eu

cd "$(dirname "$0")/.."
python=$1/bin/python
target=build/wheel

rm -rf "$target"
"$python" -m pip wheel -qq --no-deps --no-build-isolation --no-index --wheel-dir "$target" .
"$python" -m pip install -qq --no-deps --no-index --force-reinstall "$target"/*.whl
rm -rf src
cd /
case $("$OLDPWD/$python" -c 'import safe_triton; print(safe_triton.__file__)') in
    */site-packages/safe_triton/__init__.py) echo "testing the installed wheel" ;;
    *)
        echo "install-wheel: safe_triton is not imported from the wheel" >&2
        exit 1
        ;;
esac
