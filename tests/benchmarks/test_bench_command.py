"""The benchmark command as its users meet it: help for everything, one line for every mistake."""

from __future__ import annotations

import importlib

import pytest

from distnet.base.arithmetic import ARITHMETICS, arithmetic_of
from distnet.bench import NAMES, main
from distnet.benchmarks.networks import CASES, random_trainer


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_names_every_benchmark(capsys, argv):
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_help(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m distnet.bench {name} ")
    assert importlib.import_module(f"distnet.benchmarks.{name}").__doc__


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "",
            "found no benchmark, expected one of step, conv, memory, scaling, portability, devi",
        ),
        ("stp", "unknown benchmark 'stp', expected one of step, conv, "),
        ("step --round 3", "unknown option '--round'; did you mean --rounds?"),
        (
            "step --models deep_convnet deep",
            "--models: found 'deep', expected one of deep_convnet,",
        ),
        (
            "step --micro-batch-sizes 0",
            "--micro-batch-sizes: found 0, expected a whole number >= 1",
        ),
        ("step x", "found 'x', expected options only"),
        (
            "conv --size 2 --kernel 9",
            "window: a kernel of 9 does not fit into 2 pixels with padding 1",
        ),
        ("scaling --ranks 1 2 x", "--ranks: found 'x', expected a whole number >= 1"),
        ("allreduce --json", "--json: expected one argument"),
        ("memory --model vgg", "--model: found 'vgg', expected one of deep_convnet, "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, line, message):
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"distnet: error: {message}")
    assert shown.err.count("\n") == 1
    assert not shown.out


@pytest.mark.parametrize("name", ARITHMETICS)
def test_a_step_in_every_arithmetic(name):
    trainer = random_trainer(CASES["two_layer"], 8, 4, arithmetic=arithmetic_of(name))
    trainer.step(0)
    assert trainer.parameters.arithmetic.name == name
