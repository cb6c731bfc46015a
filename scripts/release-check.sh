#!/bin/sh
# Build what would be published and look at it: wheel and sdist, an installation without extras, known vulnerabilities, SBOM.
# Usage: release-check.sh PYTHON; leaves build/release/. Needs the package index; known vulnerabilities need the internet.
set -eu

python=$1
most_packages=11 # what pip install safe-triton brings, itself included

cd "$(dirname "$0")/.."
target=build/release
rm -rf "$target"
mkdir -p "$target"

"$python" -m venv "$target/tools"
"$target/tools/bin/python" -m pip install --quiet --disable-pip-version-check build pip-audit
"$target/tools/bin/python" -m build --outdir "$target/dist" . > "$target/build.log"

"$python" -m venv "$target/alone"
"$target/alone/bin/python" -m pip install --quiet --disable-pip-version-check "$target"/dist/*.whl
packages=$("$target/alone/bin/python" -m pip list --disable-pip-version-check --format=freeze | grep -c -v -E '^(pip|setuptools)==')
echo "release-check: safe-triton alone installs $packages packages"
if [ "$packages" -gt "$most_packages" ]; then
    echo "release-check: more than $most_packages" >&2
    exit 1
fi

# From a folder without the source: what is imported is what was installed.
root=$PWD
cd /
"$root/$target/alone/bin/python" -W error -c 'import safe_triton, safe_triton.testing; print("imports", safe_triton.__version__)'
cd "$root"

# What --require-hashes locks is what is looked up; --strict: a package that cannot be looked up fails.
"$target/tools/bin/pip-audit" --strict --disable-pip --require-hashes --requirement requirements/dev.lock
"$target/tools/bin/pip-audit" --path "$("$target/alone/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    --format cyclonedx-json --output "$target/sbom.json"
echo "release-check: $target/dist and $target/sbom.json"
