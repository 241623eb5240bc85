"""Portable arithmetic: the hashes of `golden` under every kernel, number of threads and of ranks.

The expected hashes are constants, so a test that passes on two machines has compared them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import launching
import pytest
from training_runs import ALONE, SIZES, read_summary, succeed, train, write_digits

from distnet.bench import main as bench
from distnet.benchmarks.golden import CASES, GOLDEN
from distnet.benchmarks.portability import OtherPython, Program, Setting, settings
from distnet.building.parts import dataset_of, objective_of, parts_of, trainer_of
from distnet.checkup.starting import mpi_library
from distnet.parallel import SerialCommunicator
from distnet.training.config import parse

SETTINGS = {setting.name: setting for setting in settings((2, 3))}
# The benchmark tries all kernels; these differ most.
UNLIKE = ["plain", "2 BLAS threads", "Prescott kernels", "Haswell kernels", "NumPy without SIMD"]
RANKS = [name for name, setting in SETTINGS.items() if setting.is_job]
# With all layers between them, and quick; the others are trained where no two ranks are waited for.
ON_RANKS = [
    *("deep_convnet", "residual", "many_layers", "signs", "segmenter", "forger"),
    *("painting", "captions", "islands", "cart_pole", "mlp_lamb"),
]


def test_every_case_has_a_hash_of_its_own():
    assert list(GOLDEN) == list(CASES)
    assert len(set(GOLDEN.values())) == len(GOLDEN)


@pytest.mark.parametrize("name", [name for name in UNLIKE if name in SETTINGS])
def test_golden_hashes_whatever_computes(name):
    cases = CASES if name == "NumPy without SIMD" else ON_RANKS
    assert SETTINGS[name].hashes(cases) == {case: GOLDEN[case] for case in cases}


@pytest.mark.mpi_launch
@pytest.mark.parametrize("name", RANKS)
def test_golden_hashes_on_ranks_alike_and_unlike(name):
    assert SETTINGS[name].hashes(ON_RANKS) == {case: GOLDEN[case] for case in ON_RANKS}


def test_in_float32_the_hashes_are_others():
    """So that the program does train, and in what it is told to."""
    found = SETTINGS["plain"].hashes(("deep_convnet",), "--float32")
    assert found["deep_convnet"] != GOLDEN["deep_convnet"]


def test_a_python_is_asked_what_it_is():
    asked = OtherPython.ask(f"{sys.executable} -s")
    assert (asked.machine, asked.mpi) == (platform.machine(), mpi_library()[0])
    alone, both = list(settings((), asked))[-2:]
    assert (alone.is_job, both.is_job) == (False, True)
    assert alone.hashes(["mlp_sgd"]) == {"mlp_sgd": GOLDEN["mlp_sgd"]}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-emulator python3", "cannot start no-such-emulator"),
        ("false", "false -m distnet.benchmarks.python_worker ended with exit code 1: no output"),
    ],
)
def test_what_is_no_python_is_one_line(command, message, capsys):
    assert bench(["portability", "--python", command]) == 1
    assert capsys.readouterr().err.startswith(f"distnet: error: {message}")


@pytest.fixture(scope="module")
def other() -> OtherPython:
    """A Python for another processor, which `launch/emulated-arm.sh` makes."""
    if "OTHER_PYTHON" not in os.environ:
        pytest.skip("the variable OTHER_PYTHON names no Python of another processor")
    return OtherPython.ask(os.environ["OTHER_PYTHON"])


def test_golden_hashes_on_another_processor(other):
    assert other.machine != platform.machine()
    assert other.program.run("-m", "distnet.benchmarks.golden", *CASES) == GOLDEN


STEPS, STOP = 4, 2
IN_FLOAT32 = f"--model simple_convnet --optimizer adam --steps {STEPS}".split()
FLAGS = [*IN_FLOAT32, "--arithmetic", "portable"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The directory of a run in a process of its own, with the kernels of this machine."""
    directory = write_digits(tmp_path_factory.mktemp("digits"))
    flags = [*FLAGS, *SIZES, "--data-dir", str(directory)]
    out = tmp_path_factory.mktemp("alone")
    succeed(ALONE, *flags, "--out", out)
    return flags, out


def start(setting: Setting, *flags: str) -> launching.Finished:
    """The training command on ranks, each with its own program."""
    return launching.run(
        setting.command("-m", "distnet.train", *flags),
        env={**os.environ, **launching.SETTINGS},
        stdin=subprocess.DEVNULL,
        check=False,
    )


def unlike(flags: Sequence[str], *kernels: str) -> launching.Finished:
    """On ranks with kernels of their own."""
    programs = tuple(Program(environ={"OPENBLAS_CORETYPE": kernel}) for kernel in kernels)
    return start(Setting("unlike", programs), *flags)


def needs_unlike_kernels() -> None:
    if not any("ranks of" in name for name in RANKS):
        pytest.skip("this NumPy's BLAS has one kind of kernels here")


@pytest.mark.mpi_launch
def test_a_job_of_ranks_with_unlike_kernels(alone, tmp_path):
    """Which in float32 is refused."""
    needs_unlike_kernels()
    flags, reference = alone
    job = unlike([*flags, "--out", str(tmp_path / "portable")], "Prescott", "Nehalem", "Prescott")
    assert job.returncode == 0, job.stderr
    assert "arithmetic portable (12 bits)" in job.stdout
    summaries = [read_summary(out) for out in (tmp_path / "portable", reference)]
    for key in ("params_sha256", "test_loss", "test_accuracy"):
        assert summaries[0][key] == summaries[1][key]
    plain = [flag for flag in flags if flag not in ("--arithmetic", "portable")]
    refused = unlike([*plain, "--out", str(tmp_path / "float32")], "Prescott", "Nehalem")
    assert refused.returncode != 0
    assert "the ranks differ in blas_architecture" in refused.stderr


@pytest.mark.mpi_launch
def test_stopped_on_one_kind_of_machine_and_resumed_on_another(alone, tmp_path):
    needs_unlike_kernels()
    flags, reference = alone
    flags = [*flags, "--out", str(tmp_path)]
    assert unlike([*flags, "--stop-at", str(STOP)], "Prescott", "Prescott").returncode == 75
    job = unlike([*flags, "--resume"], "Nehalem", "Nehalem", "Nehalem")
    assert job.returncode == 0
    assert "warning" not in job.stdout + job.stderr
    sha256 = [read_summary(out)["params_sha256"] for out in (tmp_path, reference)]
    assert sha256[0] == sha256[1]
    # What was trained in portable arithmetic is evaluated in it, in passes of more samples.
    evaluated = [evaluation(tmp_path, kernel) for kernel in ("Prescott", "Nehalem")]
    assert evaluated[0] == evaluated[1]
    assert evaluated[0]["loss"] == pytest.approx(read_summary(tmp_path)["test_loss"], rel=1e-13)


def evaluation(run: Path, kernel: str) -> dict[str, object]:
    process = subprocess.run(
        [sys.executable, "-m", "distnet.evaluate", str(run), "--json"],
        env={**os.environ, **launching.SETTINGS, "OPENBLAS_CORETYPE": kernel},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def test_other_bits_are_another_run(alone, tmp_path):
    flags, reference = alone
    succeed(ALONE, *flags, "--arithmetic-bits", "11", "--out", tmp_path)
    found, other = (read_summary(out) for out in (tmp_path, reference))
    assert found["params_sha256"] != other["params_sha256"]
    assert (found["arithmetic"], other["arithmetic"]) == ("Portable(bits=11)", "Portable(bits=12)")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--reduction float32", "--reduction: found float32 with --arithmetic portable, expected"),
        (
            "--arithmetic-bits 17",
            "--arithmetic-bits: found 17, expected a whole number >= 4 and <= 16",
        ),
    ],
)
def test_what_cannot_be_portable_is_one_line(flags, words):
    job = train(ALONE, *FLAGS, *flags.split())
    assert job.returncode == 2
    assert words in job.stderr
    assert len(job.stderr.splitlines()) == 1


def test_the_hash_in_the_readme():
    """What the first steps of the default recipe end with, without the command's evaluation."""
    readme = (launching.ROOT / "README.md").read_text()
    (expected,) = re.findall(r'^  "params_sha256": "([0-9a-f]{64})"$', readme, re.MULTILINE)
    (command,) = re.findall(r"^python -m distnet.train (.* portable) --out", readme, re.MULTILINE)
    config = parse(command.split())
    dataset = dataset_of(config, {})
    training, _ = parts_of(config, dataset)
    objective = objective_of(config, dataset, training)
    trainer = trainer_of(config, objective, training, SerialCommunicator())
    for step in range(config.steps):
        trainer.step(step)
    assert objective.parameters.sha256() == expected


@pytest.mark.mpi_launch
def test_ranks_on_unlike_processors(other, tmp_path):
    """They are one job in portable arithmetic, and in float32 they are refused."""
    alone, *both = [each for each in settings((), other) if other.machine in each.name]
    assert not alone.is_job
    if not both:
        pytest.skip("this environment and OTHER_PYTHON have not the same MPI library")
    cases = ["residual", "islands", "cart_pole"]
    assert both[0].hashes(cases) == {case: GOLDEN[case] for case in cases}
    refused = start(both[0], *IN_FLOAT32, *SIZES, "--out", str(tmp_path))
    assert refused.returncode != 0
    assert "the ranks differ in blas_architecture" in refused.stderr
