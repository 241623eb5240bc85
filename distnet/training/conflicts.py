"""Options of a training run that exclude each other, or bound one another."""

from distnet.base.options import ConfigError, flag
from distnet.parallel import CHANGES
from distnet.parallel.sums.checked import CHECKED
from distnet.parallel.sums.exact8 import Exact8
from distnet.training.options import EXACT, OTHERS, TrainOptions, weights_of
from distnet.training.step.islands import LocalSteps


def check_together(config: TrainOptions) -> None:
    """What no field can tell alone."""
    if config.class_weights not in ("", "balanced"):
        weights_of(config.class_weights)
    _check_at_most(config, "micro_batch_size", "batch_size")
    if config.local is not None:
        _check_islands(config, config.local)
    if config.overwrite and config.resume:
        raise ConfigError(
            "--overwrite: found --resume beside it, expected one of them: the run that is there is "
            "to be gone on with, or to be replaced"
        )
    if config.allreduce:
        _check_allreduce(config)
    if config.steps:
        _check_at_most(config, "stop_at", "steps")
    if config.audit and config.reduction not in CHECKED:
        raise ConfigError(
            f"--audit: found it with --reduction {config.reduction}, expected "
            f"{' or '.join(CHECKED)}: only exact sums can be checked"
        )
    if config.numbers.rounds and config.reduction in OTHERS:
        raise ConfigError(
            f"--reduction: found {config.reduction} with --arithmetic portable, expected "
            f"{' or '.join(EXACT)}: its sums depend on the ranks"
        )
    if config.profile and config.device != "cpu":
        raise ConfigError(
            f"--profile: found --device {config.device} beside it, expected cpu: it times the "
            "processor's layers; python -m distnet.bench device times those of a device"
        )
    if config.numbers.stores and config.device != "cpu":
        raise ConfigError(
            f"--device: found {config.device} with --arithmetic {config.arithmetic}, expected cpu: "
            "nobody has written mixed precision for devices"
        )


def _check_allreduce(config: TrainOptions) -> None:
    """A user's function is judged by the bits of its sums, so these have to be exact."""
    if config.reduction not in EXACT:
        raise ConfigError(
            f"--allreduce: found --reduction {config.reduction} beside it, expected "
            f"{' or '.join(EXACT)}, whose sums are right or wrong in any order"
        )
    if config.exchange != "auto":
        raise ConfigError(
            f"--allreduce: found --exchange {config.exchange} beside it, expected one of them: "
            "sums travel in one way"
        )
    if config.sync == "local":
        raise ConfigError("--allreduce: found --sync local beside it, expected --sync step")


def _check_islands(config: TrainOptions, local: LocalSteps) -> None:
    _check_at_most(config, "islands", "batch_size")
    format = CHANGES[local.sync_reduction]
    if issubclass(format, Exact8) and local.islands > format.most_contributions():
        raise ConfigError(
            f"--islands: found {local.islands}, expected at most {format.most_contributions()} "
            f"whose changes travel in {8 * format.wire_itemsize:g} bits a number; take "
            "--sync-reduction exact32"
        )
    if config.numbers.stores:
        raise ConfigError(
            f"--arithmetic: found {config.arithmetic} beside --sync local, whose outer step knows "
            "no master weights"
        )
    if config.audit:
        raise ConfigError(
            "--audit: found it beside --sync local, expected one of them: between two "
            "synchronisations no rank has the parameters of another"
        )
    own_ways = {"ema": "averaged", "balance": "dealt", "shard_optimizer": "optimized"}
    for name, done in own_ways.items():
        if getattr(config, name):
            raise ConfigError(
                f"{flag(name)}: found it beside --sync local, expected one of them: islands are "
                f"{done} in a way of their own"
            )


def _check_at_most(config: TrainOptions, name: str, limit: str) -> None:
    found, highest = getattr(config, name), getattr(config, limit)
    if found > highest:
        raise ConfigError(f"{flag(name)}: found {found}, expected at most {flag(limit)} {highest}")
