"""`faulty_program.py RANK STEP FLAGS...`: trains, and from STEP on this rank's gradients are wrong.

One bit of one element of every gradient: of the rank that was started with this number.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from distnet.parallel import Communicator, run_command
from distnet.train import train
from distnet.training.step.trainer import Trainer

RANK, STEP = map(int, sys.argv[1:3])


def command(comm: Communicator) -> int:
    me, step = comm.processes[comm.rank].rank, Trainer.step

    def faulty(trainer, number, *arguments):
        layer = trainer.objective.network.body.layers[-1]
        if number == STEP and me == RANK:
            layer.backward = damaged(trainer, layer.backward)
        return step(trainer, number, *arguments)

    Trainer.step = faulty
    return train(comm, sys.argv[3:])


def damaged(trainer, backward):
    last = trainer.parameters.grads[-1:].view(np.uint32)

    def then_flip(*arguments):
        dy = backward(*arguments)
        last[0] ^= np.uint32(1 << 15)
        return dy

    return then_flip


if __name__ == "__main__":
    sys.exit(run_command(command, os.environ))
