"""The library in front: `import distnet` is light, complete and typed; a script runs on ranks."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from importlib import resources

import pytest
from training_runs import write_digits

import distnet


def python(program: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", distnet.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(distnet, name)
    if callable(value):
        assert (value.__doc__ or "").strip()


def test_what_is_not_there_is_said():
    with pytest.raises(AttributeError, match="module 'distnet' has no attribute 'fitt'"):
        distnet.fitt  # noqa: B018
    assert set(distnet.__all__) <= set(dir(distnet))


def test_import_alone_loads_nothing_heavy():
    heavy = "numpy mpi4py safetensors threadpoolctl matplotlib"
    program = f"import sys, distnet; print([m for m in {heavy.split()} if m in sys.modules])"
    assert python(program).strip() == "[]"


def test_one_process_loads_no_mpi():
    program = """
        import sys, distnet, numpy as np
        network = distnet.Network([distnet.Linear(2)], (3,))
        distnet.fit(network, np.zeros((4, 3)), [0, 1, 0, 1], steps=1)
        print("mpi4py" in sys.modules)
    """
    assert python(program).strip() == "False"


def test_types_ship():
    """Every public name has one: what type checkers do not see imported is Any for them."""
    assert resources.files("distnet").joinpath("py.typed").is_file()
    tree = ast.parse(inspect.getsource(distnet))
    (block,) = (each for each in tree.body if ast.unparse(each).startswith("if TYPE_CHECKING"))
    seen = {each.asname for each in ast.walk(block) if isinstance(each, ast.alias)}
    assert seen == set(distnet.__all__) - {"__version__"}


def test_what_stands_in_front_takes_what_help_shows():
    """`functools.wraps` shows the arguments of what is behind it."""
    shown = inspect.signature(distnet.load_dataset)
    taken = inspect.signature(distnet.load_dataset, follow_wrapped=False)
    assert list(shown.parameters.values()) == list(taken.parameters.values())


SCRIPT = """
import numpy as np
import distnet


def main(comm):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 1, 6, 6), np.uint8), rng.integers(0, 3, 60)
    network = distnet.Network([distnet.Linear(8), distnet.ReLU(), distnet.Linear(3)], (1, 6, 6))
    settings = dict(epochs=3, optimizer="adam", batch_size=20, micro_batch_size=5, comm=comm)
    history = distnet.fit(network, images, labels, **settings)
    if comm.rank == 0:
        print(comm.size, history.params_sha256)


distnet.run(main)
"""


@pytest.mark.mpi_launch
def test_a_script_is_a_program_of_many_ranks(tmp_path, mpirun):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    alone = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    (size, expected) = alone.stdout.split()
    assert size == "1"
    for num_ranks in (2, 3):
        done = mpirun(num_ranks, str(script))
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(num_ranks), expected]


@pytest.mark.mpi_launch
def test_a_script_that_fails_on_one_rank_ends_on_all(tmp_path, mpirun):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("    rng = ", "    1 / (comm.rank - 1)\n    rng = "))
    done = mpirun(2, str(script))
    assert done.returncode not in (0, None)
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.mpi_launch
def test_fit_without_ranks_is_refused_under_mpirun(tmp_path, mpirun):
    """Otherwise every process would train the same network on its own."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, distnet\n"
        "network = distnet.Network([distnet.Linear(2)], (3,))\n"
        "distnet.fit(network, np.zeros((4, 3)), [0, 1, 0, 1], steps=1)\n"
    )
    done = mpirun(2, str(script))
    assert done.returncode not in (0, None)
    assert "fit without comm: started as rank 0 of 2" in done.stderr


@pytest.mark.parametrize("num_ranks", [0, 2])
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("def main(): pass\ndistnet.run(main)", "run: found main(), expected a function"),
        ("def main(a, b): pass\ndistnet.run(main)", "run: found main(a, b), expected a function"),
        (
            "def main(comm): pass\ndistnet.run(main(1))",
            "run: found None, expected a function",
        ),
    ],
)
@pytest.mark.mpi_launch
def test_what_is_no_main_is_one_line(mpirun, program, message, num_ranks):
    program = f"import distnet\n{program}"
    if num_ranks:
        done = mpirun(num_ranks, "-c", program)
    else:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("distnet:")]
    assert [line.partition(message)[:2] for line in lines] == [("distnet: error: ", message)]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("call", ["load('runs/typo')", "load_dataset('typo')"])
def test_files_that_cannot_be_used_are_one_line(call):
    program = f"import distnet\ndistnet.run(lambda comm: distnet.{call})"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("distnet: error: ") and "typo" in done.stderr


@pytest.mark.parametrize(
    ("returned", "code"), [("None", 0), ("3", 3), ("[1]", 0), ("True", 0), ("lambda: 1", 0)]
)
def test_the_exit_code_is_what_main_returns_if_it_can_be_one(returned, code):
    program = f"import distnet\ndef main(comm): return {returned}\ndistnet.run(main)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (code, b"")


def test_a_data_set_that_was_fetched_is_found(tmp_path):
    directory = tmp_path / "distnet" / "fashion_mnist"
    directory.mkdir(parents=True)
    write_digits(directory)
    program = "import distnet; print(len(distnet.load_dataset('fashion_mnist').train.targets))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "230\n"
