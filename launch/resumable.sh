#!/bin/bash
# Runs a training command so that it can be preempted and run again.
#
#     launch/resumable.sh OUT mpirun -n 4 python -m distnet.train [options]
#
# The command gets `--out OUT` and, if there is a checkpoint in OUT, `--resume`. SIGTERM and SIGUSR1
# to this script become SIGUSR1 to the command, which every mpirun passes on: the run ends after the
# step in progress with a checkpoint. The exit code is the command's; 75 asks to be run again, and the
# command in AGAIN, if there is one, is run for that.
set -u

if [ $# -lt 2 ]; then
    echo "usage: launch/resumable.sh OUT COMMAND..." >&2
    exit 2
fi
out=$1
shift
set -- "$@" --out "$out"
if compgen -G "$out/checkpoints/step-*.safetensors" >/dev/null; then
    set -- "$@" --resume
fi

"$@" &
job=$!
trap 'interrupted=yes; kill -USR1 "$job" 2>/dev/null' TERM USR1
# A trapped signal ends `wait` before the command has ended.
interrupted=yes
while [ "$interrupted" = yes ]; do
    interrupted=no
    wait "$job"
    code=$?
done
if [ "$code" -eq 75 ] && [ -n "${AGAIN:-}" ]; then
    $AGAIN
fi
exit "$code"
