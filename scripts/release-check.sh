#!/bin/sh
# Build what would be published and try it: the wheel alone and in the place of the source, lints, SBOM, vulnerabilities.
# Usage: release-check.sh VENV, the environment of the lock; leaves build/release/. Needs the package index. Known
# vulnerabilities need the internet: they are looked up last, and what was not looked up is not passed.
set -eu

most_packages=11 # what pip install safe-triton brings, itself included

cd "$(dirname "$0")/.."
root=$PWD
python=$root/$1/bin/python
target=$root/build/release
dist=$target/dist
rm -rf "$target"
mkdir -p "$target"

tell() {
    printf 'release-check: %s\n' "$1"
}

# Of the environment of the lock: what hatchling reads is not downloaded again.
build() {
    "$python" -m hatchling build --target "$1" --directory "$2" >>"$target/build.log" 2>&1
}

pip_into() {
    environment=$1
    shift
    "$python" -m pip --disable-pip-version-check --python "$environment/bin/python" "$@"
}

build sdist "$dist"
build wheel "$target/from-tree"
mkdir "$target/source"
tar --extract --file "$dist"/*.tar.gz --directory "$target/source" --strip-components 1
cd "$target/source"
build wheel "$dist"
cmp "$dist"/*.whl "$target"/from-tree/*.whl
tell "$(cd "$dist" && echo *): the wheel of the source release is that of the tree, byte by byte"

# As a user installs it, from the index and without extras; numpy 1 is for the server of the wheel, built before numpy 2.
"$python" -m venv --without-pip "$target/alone"
pip_into "$target/alone" install --quiet "$dist"/*.whl 'numpy<2'
packages=$(pip_into "$target/alone" list --format=freeze | grep -c ==)
tell "safe-triton alone installs $packages packages"
if [ "$packages" -gt "$most_packages" ]; then
    tell "more than $most_packages" >&2
    exit 1
fi
cd "$root"
"$python" -c 'import sys; from pathlib import Path; from tests.container.layout import make_layout, wheel_folder
make_layout(Path(sys.argv[1]), wheel_folder())' "$target/container"
cp tests/container/alone.py "$target/alone.py"
cd /
"$target/alone/bin/python" -W error "$target/alone.py" "$target/container/opt/tritonserver"

# The tests of the source release, without its source: what they import is the installed wheel. Packages for tests are
# those of the lock, after it on the path.
cd "$target/source"
rm -rf src
"$python" -m venv --without-pip "$target/tested"
pip_into "$target/tested" install --quiet --no-deps --no-index "$dist"/*.whl
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$target/tested/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lock.pth"
tell "$("$target/tested/bin/python" -c 'import safe_triton; print("tests with", safe_triton.__file__)')"
"$target/tested/bin/python" -m pytest -q -p no:cacheprovider tests/unit/policy tests/unit/validation tests/unit/config \
    tests/unit/cli/test_cli.py tests/triton/test_models/test_json_order.py

cd "$root"
"$python" -m venv --without-pip "$target/tools"
pip_into "$target/tools" install --quiet --require-hashes --only-binary :all: --requirement requirements/release.lock
tools=$target/tools/bin
"$tools/cyclonedx-py" environment --validate --output-reproducible --of JSON --output-file "$target/sbom.json" \
    --pyproject pyproject.toml --mc-type library "$target/alone/bin/python"
tell "$target/sbom.json: $("$python" -c 'import json, sys
found = json.load(open(sys.argv[1])); print("CycloneDX", found["specVersion"], "with", len(found["components"]), "components")' \
    "$target/sbom.json")"

"$tools/hadolint" Dockerfile.test
"$tools/zizmor" --offline --no-progress --quiet .github action.yml
"$tools/check-jsonschema" --quiet --builtin-schema vendor.compose-spec compose.test.yaml
"$tools/check-jsonschema" --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
"$tools/check-jsonschema" --quiet --builtin-schema vendor.github-actions action.yml
tell "no findings in the Dockerfile, the compose file, the workflow and the action"

# What --require-hashes locks is what is looked up; --strict: a package that cannot be looked up fails.
for lock in dev release; do
    if ! "$tools/pip-audit" --strict --disable-pip --require-hashes --requirement "requirements/$lock.lock"; then
        tell "requirements/$lock.lock has known vulnerabilities, or they could not be looked up; all else has passed" >&2
        exit 1
    fi
done
tell "$dist is ready to publish"
