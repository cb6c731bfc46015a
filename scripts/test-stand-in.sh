#!/bin/sh
# Build Dockerfile.test with podman on a stand-in for NVIDIA's image, Debian with the wheel's server in /opt/tritonserver, and
# run tests in it as closed as compose.test.yaml does. The images stay: podman rmi safe-triton-test triton-stand-in
# Usage: test-stand-in.sh VENV [pytest arguments]; VENV's Python is that of Debian, 3.11.
# Needs root, the packages podman, runc, debootstrap and catatonit, Debian's archive and the package index.
set -eu

cd "$(dirname "$0")/.."
python=$1/bin/python
shift

if ! podman image exists localhost/triton-stand-in; then
    base=$(mktemp -d)
    trap 'rm -rf --one-file-system "$base"' EXIT INT TERM
    debootstrap --variant=minbase --include=python3,python3-pip,libpython3.11,ca-certificates bookworm "$base"
    for mounted in proc sys; do
        if mountpoint --quiet "$base/$mounted"; then umount "$base/$mounted"; fi
    done
    "$python" -c 'import sys; from pathlib import Path; from tests.container.layout import make_layout, wheel_folder
make_layout(Path(sys.argv[1]), wheel_folder())' "$base"
    # The layout's libraries are links to the wheel's.
    cp --recursive --dereference "$base/opt/tritonserver/lib" "$base/opt/tritonserver/lib.new"
    rm -r "$base/opt/tritonserver/lib"
    mv "$base/opt/tritonserver/lib.new" "$base/opt/tritonserver/lib"
    tar --create --directory "$base" . | podman import - localhost/triton-stand-in
fi

podman build --isolation chroot --network host --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --build-arg TRITON_IMAGE=localhost/triton-stand-in --file Dockerfile.test --tag localhost/safe-triton-test .
# Limits below a machine's own, which podman would raise otherwise.
exec podman --runtime runc run --rm --init --init-path /usr/bin/catatonit --network none \
    --read-only --tmpfs /tmp:exec,size=2g,mode=1777 --shm-size 2g --cap-drop ALL --security-opt no-new-privileges \
    --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
    --volume "$PWD/model_repository:/project/model_repository:ro" localhost/safe-triton-test "$@"
