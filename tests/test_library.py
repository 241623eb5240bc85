"""The library in front: `import distnet` is light, complete and typed; a script runs on ranks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import resources

import pytest

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
    heavy = "numpy mpi4py rich safetensors threadpoolctl matplotlib"
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
    assert resources.files("distnet").joinpath("py.typed").is_file()


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
