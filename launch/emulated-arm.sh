#!/bin/bash
# Puts a Python for 64-bit Arm, with all that distnet needs, into the new directory DIR. The emulator
# qemu-user runs it on another processor:
#
#     launch/emulated-arm.sh DIR
#     python -m distnet.bench portability --python "qemu-aarch64 -L DIR DIR/usr/bin/python3"
#
# Needs qemu-user and mmdebstrap (packages of Debian and Ubuntu), and distnet in the environment of the
# Python on PATH. If that has MPICH's wheel, DIR gets the same MPICH: ranks of both can be one job.
set -eu

if [ $# -ne 1 ] || [ -e "$1" ]; then
    echo "usage: launch/emulated-arm.sh DIR, which is not there yet; found ${1:-no argument}" >&2
    exit 2
fi
for program in qemu-aarch64 mmdebstrap python; do
    if ! command -v "$program" >/dev/null; then
        echo "launch/emulated-arm.sh: error: found no $program on PATH; see the first lines of this file" >&2
        exit 2
    fi
done

# Only unpacked: to install them, programs for Arm would have to run.
mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6 bookworm "$1"

version=$(qemu-aarch64 -L "$1" "$1/usr/bin/python3" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheels=(--quiet --disable-pip-version-check --only-binary=:all: --python-version "$version"
    --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64)
# What distnet requires, but for its extras.
python -c 'from importlib.metadata import requires
print(*(each for each in requires("distnet-mpi") if "extra ==" not in each), sep="\n")' >"$1/requirements.txt"
python -m pip install "${wheels[@]}" --target "$1/usr/lib/python3/dist-packages" --requirement "$1/requirements.txt"

mpich=$(python -m pip freeze | grep '^mpich==' || true)
if [ -n "$mpich" ]; then
    python -m pip download "${wheels[@]}" --no-deps --dest "$1/wheels" "$mpich"
    # Its libraries lie beside its Python package, where pip's --target leaves them out.
    python -m zipfile -e "$1"/wheels/mpich-*.whl "$1/wheels"
    cp -R "$1"/wheels/mpich-*.data/data/lib/. "$1/usr/lib"
fi
