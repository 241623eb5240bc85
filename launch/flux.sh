#!/bin/bash
# A Flux job that saves its state a minute before its time is up, and submits itself again:
#
#     flux batch launch/flux.sh [options of distnet.train]
#
# OUT (default: runs/flux-JOBID) names the run directory; it has to be on a file system that all nodes
# share. For another size change the two numbers, and RANKS. Flux starts the ranks itself, by PMI,
# which MPICH speaks; Open MPI needs Flux's pmix plugin.
#flux: --job-name=distnet
#flux: --nodes=2
#flux: --nslots=8
#flux: --time-limit=4h
#flux: --signal=SIGUSR1@60s
set -eu

export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
export RANKS="${RANKS:-8}" OUT="${OUT:-runs/flux-$(flux getattr jobid)}"

# Flux sends the signal to the ranks itself, and to this script as well. `flux run` would end by it
# before the ranks have written their state, so that it does not listen.
# shellcheck disable=SC2016  # for the inner shell
exec python -m distnet supervise --requeue "flux --parent batch launch/flux.sh ${*@Q}" -- \
    sh -c 'trap "" USR1; exec flux run "$@"' flux-run -n "$RANKS" \
    python -m distnet.train --out "$OUT" "$@"
