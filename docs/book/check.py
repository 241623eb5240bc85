"""Runs the experiments of the book and holds their numbers to what is required of them.

    python docs/book/check.py [--quick] [--only A7,ch05] [--skip ch08] [--out DIR]

prints a line for each requirement and ends with exit code 1 if one fails. Works under mpirun too.
With `--out docs/book` it draws the pictures of the pages anew.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from distnet.base.options import option
from distnet.experiments import (
    Lab,
    LabOptions,
    Required,
    Run,
    Verdict,
    load,
    parse,
    perform,
    prepare,
    show,
)
from distnet.parallel import Communicator, run_command, together

BOOK = Path(__file__).resolve().parent

# Every experiment, in the order of the book.
EXPERIMENTS = (
    "ch02/gates.py",
    "ch02/learn_xor.py",
    "ch02/nand_adder.py",
    "ch03/activations.py",
    "ch03/three_layer_network.py",
    "ch03/recognize_digits.py",
    "ch04/losses.py",
    "ch04/numerical_differentiation.py",
    "ch04/descend.py",
    "ch04/simple_net.py",
    "ch04/learn_by_differences.py",
    "ch04/train_two_layer_net.py",
    "ch05/apples_and_oranges.py",
    "ch05/check_gradients.py",
    "ch05/train_with_backpropagation.py",
    "ch05/softmax_with_loss.py",
    "ch06/optimizer_paths.py",
    "ch06/compare_optimizers.py",
    "ch06/zero_weights.py",
    "ch06/activation_histograms.py",
    "ch06/compare_initializations.py",
    "ch06/batch_norm_scales.py",
    "ch06/weight_decay.py",
    "ch06/dropout.py",
    "ch06/random_search.py",
    "ch07/im2col_shapes.py",
    "ch07/gradients_of_convnet.py",
    "ch07/train_simple_convnet.py",
    "ch07/published_simple_convnet.py",
    "ch07/first_filters.py",
    "ch07/linear_probes.py",
    "ch08/train_deep_convnet.py",
    "ch08/misclassified_digits.py",
    "ch08/published_deep_convnet.py",
    "ch08/ensemble.py",
    "ch08/learning_rate_decay.py",
    "ch08/data_augmentation.py",
    "ch08/stacked_convolutions.py",
    "ch08/history.py",
    "ch08/published_in_small.py",
    "ch08/deep_residuals.py",
    "ch08/transfer_learning.py",
    "ch08/where_time_goes.py",
    "ch08/on_a_gpu.py",
    "ch08/fewer_bits.py",
    "ch08/one_bit.py",
    "ch08/rcnn_scenes.py",
    "ch08/faster_rcnn_scenes.py",
    "ch08/fully_convolutional.py",
    "ch08/segnet_road.py",
    "ch08/nic_scenes.py",
    "ch08/nic_grid.py",
    "ch08/texture_networks.py",
    "ch08/style_transfer.py",
    "ch08/dcgan.py",
    "ch08/dqn_cart_pole.py",
    "ch08/dqn_catch.py",
    "ch08/dqn_catch_three.py",
)


@dataclass(frozen=True)
class CheckOptions(LabOptions):
    """Runs the experiments of the book and holds their numbers to what is required of them."""

    only: str = option(
        "",
        "acceptance ids, chapters or scripts, with commas between: A7,ch05",
        group="size",
        metavar="NAMES",
    )
    skip: str = option("", "what is left out, by such names", group="size", metavar="NAMES")


@dataclass(frozen=True)
class Experiment:
    """A script of the book: "ch05/backpropagation.py", its function, what must hold."""

    script: str
    run: Run
    required: list[Required]

    @classmethod
    def load(cls, script: str) -> Experiment:
        module = load(BOOK / script)
        return cls(script, module.run, module.REQUIRED)

    @property
    def path(self) -> Path:
        return Path(self.script)

    @property
    def names(self) -> set[str]:
        """What `--only` may call it."""
        return {self.path.parent.name, self.path.stem, *(item.id for item in self.required)}

    def judge(self, lab: Lab) -> list[Verdict]:
        """Runs it; its results go to a directory for its chapter."""
        lab = replace(lab, out=lab.out / self.path.parent)
        numbers = perform(lab, self.path.stem, self.run)
        return [lab.judge(item, numbers) for item in self.required]


def select(only: str, skip: str = "") -> list[Experiment]:
    """The experiments that `--only` names, or all, without those that `--skip` names.

    Raises ValueError for a name that none has.
    """
    experiments = [Experiment.load(script) for script in EXPERIMENTS]

    def names_of(flag: str, text: str) -> set[str]:
        names = {name.strip() for name in text.split(",") if name.strip()}
        unknown = sorted(names.difference(*(each.names for each in experiments)))
        if unknown:
            raise ValueError(f"{flag}: found {unknown[0]!r}, expected ids such as A7 or ch05")
        return names

    wanted, left_out = names_of("--only", only), names_of("--skip", skip)
    chosen = [each for each in experiments if not wanted or wanted & each.names]
    return [each for each in chosen if not left_out & each.names]


def check(comm: Communicator) -> int:
    """The command: 0 if every requirement holds, 1 if not, 2 for a wrong option."""
    options = parse(CheckOptions, "python docs/book/check.py", comm)
    experiments = together(comm, lambda: select(options.only, options.skip))
    lab = prepare(comm, options)
    verdicts = []
    for experiment in experiments:
        show(comm, [experiment.script])
        judged = experiment.judge(lab)
        show(comm, [f"  {verdict}" for verdict in judged])
        verdicts += judged
    num_failed = sum(verdict.holds is False for verdict in verdicts)
    show(comm, [f"{len(verdicts)} requirements, {num_failed} failed"])
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(run_command(check, os.environ))
