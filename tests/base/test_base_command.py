"""What commands begin with."""

from __future__ import annotations

import gc
import subprocess
import sys

import launching
import pytest

from distnet.base.command import one_line
from distnet.parallel import run_command


@pytest.fixture
def no_collector():
    """As it is while a command imports."""
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "command",
    [
        lambda found: one_line()(lambda: found.append(gc.isenabled()) or 0)(),
        lambda found: run_command(lambda comm: found.append(gc.isenabled()), {}),
    ],
    ids=["without ranks", "on ranks"],
)
def test_a_command_looks_for_garbage_again(command):
    found = []
    assert command(found) == 0
    assert found == [True] and gc.isenabled()
    assert gc.get_freeze_count() > 1000, "what was imported is not looked through any more"


@pytest.mark.usefixtures("no_collector")
def test_a_collector_that_is_on_is_left_alone():
    gc.enable()
    before = gc.get_freeze_count()
    assert one_line()(lambda: 0)() == 0
    assert gc.get_freeze_count() == before


def test_only_commands_put_it_off():
    code = "import gc, distnet; print(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=launching.HUNG_SECONDS,
        env={"PYTHONPATH": str(launching.ROOT)},
    )
    assert done.stdout == "True\n", done.stderr
