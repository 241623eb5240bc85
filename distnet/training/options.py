"""The options of a training run: one table of flags, TOML keys and fields."""

import math
from dataclasses import dataclass, replace
from typing import Any

from distnet.base.arithmetic import (
    ARITHMETICS,
    BITS,
    FEWEST,
    MOST,
    Arithmetic,
    Portable,
    arithmetic_of,
)
from distnet.base.options import (
    ConfigError,
    Option,
    option,
    option_of,
    shown,
    with_options_of,
)
from distnet.data.augment import OPTIONS as AUGMENTATIONS
from distnet.data.registry import DATASETS
from distnet.models import MODELS
from distnet.optim import OPTIMIZERS, SCHEDULES
from distnet.parallel import EXCHANGES, REDUCTIONS
from distnet.training.registries import ENTRIES, SYNCHRONIZATIONS
from distnet.training.step.islands import LocalSteps

WHAT = "network and data"
LENGTH = "length of the run"
UPDATE = "optimization"
NOISE = "randomness and regularization"
RANKS = "ranks"
FILES = "files and output"

MAX_STEPS = 1_000_000_000
STEPS = {">=": 0, "<=": MAX_STEPS}
COUNT = {">=": 1, "<=": 1_000_000}
EXACT = [name for name, kind in REDUCTIONS.items() if kind.exact]
OTHERS = [name for name, kind in REDUCTIONS.items() if not kind.exact]
LR = Option("peak learning rate", metavar="X", limits={">": 0, "<=": 1000})


@dataclass(frozen=True)
@with_options_of(
    {"model": WHAT, "optimizer": UPDATE, "schedule": UPDATE, "sync": UPDATE}, **ENTRIES
)
class TrainOptions:
    """What may be said of a run, whether or not it goes together; see `config.TrainConfig`.

    Beside the options below there are those that the networks, optimizers and schedules declare;
    None are those that the chosen one does not take.
    """

    model: str = option("deep_convnet", "network", group=WHAT, choices=MODELS)
    data: str = option(
        "mnist",
        "data set",
        group=WHAT,
        choices=DATASETS,
        otherwise="; --data-dir is for your own",
    )
    data_dir: str = option(
        "",
        "directory with the files of the data set; without --data whatever images and labels it "
        "holds (default: the files inside the package, or where they were fetched to)",
        group=WHAT,
        metavar="DIR",
        decides=False,
        path=True,
    )

    validation: float = option(
        0.0,
        "part of each class of the training data that is held out; the best checkpoint is chosen "
        "by it, and no longer by the test data",
        group=WHAT,
        metavar="FRACTION",
        limits={">=": 0, "<": 1},
    )

    epochs: int = option(
        4,
        "passes over the training data; in place of the steps of a file",
        group=LENGTH,
        metavar="N",
        limits=COUNT,
        instead_of="steps",
    )
    steps: int = option(
        0,
        "length of the run in steps, which schedules refer to; 0: as --epochs says",
        group=LENGTH,
        metavar="N",
        limits=STEPS,
    )
    stop_at: int = option(
        0,
        "end early at this step with a checkpoint and exit code 75; 0: never",
        group=LENGTH,
        metavar="STEP",
        limits=STEPS,
        decides=False,
    )

    patience: int = option(
        0,
        "end when so many evaluations were no better than the best before them, on the validation "
        "data or else on the test data; 0: never",
        group=LENGTH,
        metavar="N",
        limits=STEPS,
    )

    batch_size: int = option(
        100, "samples per step, GLOBAL: over all ranks", group=UPDATE, metavar="N", limits=COUNT
    )
    micro_batch_size: int = option(
        25,
        "samples per gradient computation, the unit that ranks share out; where only "
        "--batch-size is given: that in 1, 2, 4 ... equal parts, as few as leave at most 32",
        group=UPDATE,
        metavar="N",
        limits=COUNT,
    )
    optimizer: str = option(
        "adam",
        "update rule",
        group=UPDATE,
        choices=OPTIMIZERS,
    )
    lr: float = option_of(
        "optimizer", {name: replace(LR, default=o.lr) for name, o in OPTIMIZERS.items()}, UPDATE
    )
    weight_decay: float = option(
        0.0, "weight decay factor", group=UPDATE, metavar="X", limits={">=": 0, "<=": 1}
    )
    clip_norm: float = option(
        0.0,
        "a gradient that is longer is scaled down to this Euclidean norm; 0: never",
        group=UPDATE,
        metavar="X",
        limits={">=": 0, "<=": 1_000_000},
    )
    ema: float = option(
        0.0,
        "evaluate an exponential moving average of the parameters with this decay, over about "
        "1/(1 - DECAY) steps, and take it as the result; 0: the parameters themselves",
        group=UPDATE,
        metavar="DECAY",
        limits={">=": 0, "<": 1},
    )
    schedule: str = option("linear", "course of the learning rate", group=UPDATE, choices=SCHEDULES)
    sync: str = option(
        "step",
        "when ranks come to one state; step: after every step; local: islands train apart and "
        "synchronise rarely, for slow networks",
        group=UPDATE,
        choices=SYNCHRONIZATIONS,
    )
    class_weights: str = option(
        "",
        "how much a sample of each class counts: numbers with commas between them, or balanced, "
        "so that all classes count alike (default: 1 for all)",
        group=UPDATE,
        metavar="W,W,...",
    )

    freeze: str = option(
        "",
        "layers, or kinds of layers, that keep their weights and are not trained, with commas "
        "between them, such as conv,batchnorm (default: none)",
        group=UPDATE,
        metavar="NAME,...",
    )

    seed: int = option(
        0, "seed of all randomness", group=NOISE, metavar="N", limits={">=": 0, "<=": 2**63 - 1}
    )
    label_smoothing: float = option(
        0.0,
        "part of the target that is spread evenly over all classes",
        group=NOISE,
        metavar="X",
        limits={">=": 0, "<": 1},
    )
    augment_shift: int = option(
        1,
        "shift training images by up to this many pixels; 0: leave them as they are",
        group=NOISE,
        metavar="N",
        limits=AUGMENTATIONS["shift"].limits,
    )
    augment_rotation: float = option(
        0.0,
        "turn training images by up to this many degrees, either way; 0: leave them upright",
        group=NOISE,
        metavar="DEGREES",
        limits=AUGMENTATIONS["rotation"].limits,
    )
    augment_scale: float = option(
        0.0,
        "make training images smaller or larger by up to this part; 0: leave their size",
        group=NOISE,
        metavar="X",
        limits=AUGMENTATIONS["scale"].limits,
    )
    augment_flip: bool = option(False, "mirror half of the training images", group=NOISE)
    augment_brightness: float = option(
        0.0,
        "change the brightness of training images by up to this part; 0: leave it",
        group=NOISE,
        metavar="X",
        limits=AUGMENTATIONS["brightness"].limits,
    )
    augment_cutout: int = option(
        0,
        "blot out a square of this many pixels in training images; 0: none",
        group=NOISE,
        metavar="N",
        limits=AUGMENTATIONS["cutout"].limits,
    )

    arithmetic: str = option(
        "float32",
        "how numbers are computed; portable: the same bits on every machine, at half the speed; "
        "float16, bfloat16: mixed precision, on numbers of 16 bits",
        group=RANKS,
        choices=ARITHMETICS,
    )
    arithmetic_bits: int = option(
        BITS,
        "bits of the numbers that portable arithmetic multiplies",
        group=RANKS,
        metavar="N",
        limits={">=": FEWEST, "<=": MOST},
    )
    device: str = option(
        "cpu",
        "what the layers compute on; cuda: an NVIDIA GPU, through CuPy; auto: a GPU on ranks that "
        "have one; in portable arithmetic the result is the same",
        group=RANKS,
        choices=("cpu", "cuda", "auto"),
        decides=False,
    )
    reduction: str = option(
        "exact",
        f"gradient sum; the same bits on any number of ranks: {', '.join(EXACT)}; not the same: "
        f"{', '.join(OTHERS)}",
        group=RANKS,
        choices=REDUCTIONS,
    )
    exchange: str = option(
        "auto",
        "how sums travel between ranks; shared: in the memory of one host; two-level: within each "
        "host, then between hosts; leaders: the same, one rank of a host sends; auto: an exact sum "
        "takes the first of these that it can, others are messages",
        group=RANKS,
        choices=("auto", *EXCHANGES),
        decides=False,
    )
    allreduce: str = option(
        "",
        "a Python function of your own that sums over the ranks, function(send, receive, comm); "
        "its sums are compared with MPI's and timed (default: none)",
        group=RANKS,
        metavar="MODULE:FUNCTION",
        decides=False,
    )
    bucket_bytes: int = option(
        0,
        "gradient bytes that ranks add up at a time; 0: on one host all, or 1 MiB in a message, "
        "64 KiB between hosts",
        group=RANKS,
        metavar="BYTES",
        limits={">=": 0, "<=": 1 << 30},
        decides=False,
    )
    shard_optimizer: bool = option(
        False,
        "each rank keeps its share of the optimizer's vectors alone; the result is the same",
        group=RANKS,
        decides=False,
    )
    balance: bool = option(
        False,
        "deal micro-batches by the speed of each rank, measured in the epoch before; the result is "
        "the same",
        group=RANKS,
        decides=False,
    )
    audit: int = option(
        0,
        "micro-batches of each step that another rank computes a second time, to find processors "
        "and memory that go wrong; the sums are checked as well; 0: none",
        group=RANKS,
        metavar="K",
        limits={">=": 0, "<=": 1_000_000},
        decides=False,
    )
    stall_timeout: float = option(
        0.0,
        "report who is missing when a rank waits this many seconds for the others; 0: never",
        group=RANKS,
        metavar="SECONDS",
        limits={">=": 0, "<=": 86400},
        decides=False,
    )
    stall_action: str = option(
        "report",
        "what a stall leads to; end: the job ends with exit code 76",
        group=RANKS,
        choices=("report", "end"),
        decides=False,
    )

    expect_hosts: int = option(
        0,
        "end at once, with exit code 2, unless the ranks run on so many hosts; 0: any number",
        group=RANKS,
        metavar="N",
        limits={">=": 0, "<=": 1_000_000},
        decides=False,
    )

    out: str = option(
        "",
        "directory for results (default: runs/MODEL-DATA-seedSEED)",
        group=FILES,
        metavar="DIR",
        decides=False,
        path=True,
    )
    resume: str = option(
        "",
        "go on from a checkpoint: FILE, or the newest valid one in --out if FILE is left out",
        group=FILES,
        metavar="FILE",
        bare="latest",
        decides=False,
        path=True,
    )
    init: str = option(
        "",
        "start from the weights in a model file, a checkpoint or the directory of a run, as far as "
        "their shapes are those of the network",
        group=FILES,
        metavar="FILE",
        decides=False,
        path=True,
    )
    overwrite: bool = option(
        False,
        "replace the run whose results are in the directory, and a file that is where the timeline "
        "goes, which are otherwise refused; a timeline is replaced without it",
        group=FILES,
        decides=False,
    )
    checkpoint_every: int = option(
        0,
        "steps between checkpoints; 0: at the end of each epoch",
        group=FILES,
        metavar="N",
        limits=STEPS,
        decides=False,
    )
    keep: int = option(
        3,
        "newest checkpoints kept, besides the best one; 0: all",
        group=FILES,
        metavar="N",
        limits=STEPS,
        decides=False,
    )
    verify_every: int = option(
        0,
        "steps between comparisons of all ranks' states; 0: at the end of each epoch; always "
        "before a checkpoint",
        group=FILES,
        metavar="N",
        limits=STEPS,
        decides=False,
    )
    log_every: int = option(
        100,
        "steps between training lines in metrics.jsonl; 0: one an epoch",
        group=FILES,
        metavar="N",
        limits=STEPS,
        decides=False,
    )
    csv: bool = option(
        False, "write tables beside metrics.jsonl, csv/epoch.csv ...", group=FILES, decides=False
    )
    tensorboard: bool = option(
        False,
        "write what TensorBoard reads beside metrics.jsonl, in tensorboard/",
        group=FILES,
        decides=False,
    )
    hash_every: int = option(
        0,
        "steps between hashes of the whole state in metrics.jsonl, each of which includes the one "
        "before; 0: none",
        group=FILES,
        metavar="N",
        limits=STEPS,
        decides=False,
    )
    timeline: str = option(
        "",
        "write a trace of all ranks to this file, for ui.perfetto.dev (default: none)",
        group=FILES,
        metavar="FILE",
        decides=False,
        path=True,
    )
    profile: bool = option(
        False,
        "at the end, tell how long each layer took, forward and backward",
        group=FILES,
        decides=False,
    )
    progress: bool = option(
        True,
        "a line that shows how far the run is, if standard error, or mpirun's, is a terminal",
        group=FILES,
        decides=False,
    )
    quiet: bool = option(
        False, "no lines and no progress, but warnings and errors", group=FILES, decides=False
    )

    @property
    def numbers(self) -> Arithmetic:
        """The arithmetic that --arithmetic names."""
        if self.arithmetic == Portable.name:
            return Portable(self.arithmetic_bits)
        return arithmetic_of(self.arithmetic)

    @property
    def local(self) -> LocalSteps | None:
        """How islands synchronise, if there are to be any."""
        return LocalSteps(**self.settings("sync")) if self.sync == "local" else None

    def settings(self, registry: str) -> dict[str, Any]:
        """The options that the chosen "model", "optimizer", ... takes, by name."""
        return {name: getattr(self, name) for name in ENTRIES[registry][getattr(self, registry)]}


def weights_of(text: str) -> list[float]:
    """The numbers of `--class-weights 1,2,0.5`; raises ConfigError."""
    try:
        weights = [float(word) for word in text.split(",")]
    except ValueError:
        weights = []
    if not weights or not all(0 < weight < math.inf for weight in weights):
        raise ConfigError(
            f"--class-weights: found {shown(text)}, expected balanced, or numbers > 0 with commas "
            "between them"
        )
    return weights
