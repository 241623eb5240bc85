"""The experiments of section 8.5.4: what they train is the same on two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from distnet.experiments import Lab, load
from distnet.parallel import SerialCommunicator

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["dqn_cart_pole", "dqn_catch"])
def test_a_player_is_the_same_on_two_ranks(name, comm, tmp_path):
    script = load(CHAPTER / f"{name}.py")
    shared, alone = (
        script.learned(Lab(ranks, tmp_path), script.q_network(3), 3, 50)
        for ranks in (comm, SerialCommunicator())
    )
    assert shared == alone
    assert shared.params_sha256 != script.q_network(3).parameters.sha256()
