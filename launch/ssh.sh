#!/bin/bash
# Trains on hosts that ssh reaches without a password, and goes on with those that are left when some
# are lost:
#
#     launch/ssh.sh HOSTFILE [options of distnet.train]
#
# HOSTFILE has a host a line; what follows the name, and a #, is left out. Start it on the first one,
# which writes. All hosts see this directory, and the Python on PATH, under the same names. The file is
# read again every minute: the run goes on with hosts that are added to it, or come back. Variables:
# RANKS_PER_HOST (default 1), OUT (default runs/ssh), MPIRUN, RESTARTS (3), LOOK_EVERY (60 seconds).
set -eu

if [ $# -eq 0 ] || [ ! -r "$1" ]; then
    echo "usage: launch/ssh.sh HOSTFILE [options of distnet.train]; found no file ${1:-}" >&2
    exit 2
fi
if ! grep -q '^[[:space:]]*[^#[:space:]]' "$1"; then
    echo "launch/ssh.sh: error: found no host in $1, expected one a line" >&2
    exit 2
fi
hostfile=$(printf '%q' "$1")
shift

# The whole path: the other hosts know no PATH of ours.
whole_path() {
    command -v "$1" && return
    echo "launch/ssh.sh: error: found no $1 on PATH, expected that of the environment of distnet" >&2
    exit 2
}
python=$(whole_path python)
mpirun=$(whole_path "${MPIRUN:-mpirun}")
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
case $("$mpirun" --version) in
    *"Open MPI"*)
        # It passes no variables on by itself, and would tie ranks of different hosts to core 0.
        places=(--host "{hosts}" --map-by "ppr:{ranks_per_host}:node:OVERSUBSCRIBE" --bind-to none)
        places+=(-x OPENBLAS_NUM_THREADS -x OMP_NUM_THREADS ${PYTHONPATH:+-x PYTHONPATH}) ;;
    *)
        places=(-launcher ssh -hosts "{hosts}" -ppn "{ranks_per_host}") ;;
esac

exec "$python" -m distnet supervise --max-restarts "${RESTARTS:-3}" \
    --hosts-from "cat $hostfile" --look-every "${LOOK_EVERY:-60}" \
    --ranks-per-host "${RANKS_PER_HOST:-1}" -- \
    "$mpirun" "${places[@]}" -n "{ranks}" "$python" -m distnet.train \
    --out "${OUT:-runs/ssh}" --expect-hosts "{num_hosts}" "$@"
