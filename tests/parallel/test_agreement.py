from __future__ import annotations

import sys

import pytest

from distnet.parallel import AgreedExit, DisagreementError, RankError, agree, together


def raises(message, ranks, comm):
    """An action that raises ValueError on some ranks and returns the rank on the others."""

    def action():
        if comm.rank in ranks:
            raise ValueError(message)
        return comm.rank

    return action


def test_together_returns_each_ranks_result(any_comm):
    assert together(any_comm, raises("bad", [], any_comm)) == any_comm.rank


def test_together_keeps_a_message_that_all_share(any_comm):
    with pytest.raises(RankError, match=r"^bad input$"):
        together(any_comm, raises("bad input", range(any_comm.size), any_comm))


@pytest.mark.mpi(min_size=3)
def test_together_names_the_ranks(comm):
    with pytest.raises(RankError, match=rf"^rank 1 of {comm.size}: bad$"):
        together(comm, raises("bad", [1], comm))
    with pytest.raises(RankError, match=rf"^ranks 0, 2 of {comm.size}: bad$"):
        together(comm, raises("bad", [0, 2], comm))
    with pytest.raises(RankError, match=rf"^rank 0 of {comm.size}: bad 0; rank 2 of .: bad 2$"):
        together(comm, raises(f"bad {comm.rank}", [0, 2], comm))


def test_together_turns_a_common_exit_into_an_agreed_one(any_comm):
    with pytest.raises(AgreedExit) as exit_info:
        together(any_comm, lambda: sys.exit(2))
    assert exit_info.value.code == 2


def test_together_lets_bugs_pass(comm):
    with pytest.raises(ZeroDivisionError):
        together(comm, lambda: 1 // 0)


def test_agree_accepts_equal_descriptions(any_comm):
    agree(any_comm, {"seed": 1, "layers": [3, 4]})


@pytest.mark.mpi(min_size=3)
def test_agree_names_key_values_and_ranks(comm):
    description = {"model": "cnn", "seed": 7 if comm.rank == 1 else 5, "lr": comm.rank}
    others = ", ".join(str(r) for r in range(comm.size) if r != 1)
    with pytest.raises(DisagreementError, match=f"in seed: 5 on ranks {others}; 7 on rank 1; "):
        agree(comm, description)
    missing = {} if comm.rank == 0 else {"blas": "haswell"}
    with pytest.raises(DisagreementError, match=r"in blas: \(missing\) on rank 0; .*; pin it"):
        agree(comm, missing, remedy="pin it")
