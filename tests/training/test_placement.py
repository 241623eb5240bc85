"""What a run says at its start about its ranks."""

from __future__ import annotations

import pytest

from distnet.building.job import job_of
from distnet.data.sampler import Sampler
from distnet.parallel import PlacementError, SerialCommunicator
from distnet.parallel.communicator import Process
from distnet.training.config import TrainConfig
from distnet.training.placement import idle_ranks, placement


def on_hosts(*hosts: str) -> SerialCommunicator:
    comm = SerialCommunicator()
    comm.processes = [Process(rank, host, 100 + rank) for rank, host in enumerate(hosts)]
    return comm


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ("a a", "1 host"),
        ("a a b", "2 hosts: a x 2, b x 1"),
        ("a b c d e f", "6 hosts: a x 1, b x 1, c x 1, d x 1, ..."),
    ],
)
def test_hosts_and_their_ranks(hosts, text):
    assert placement(on_hosts(*hosts.split())) == text


def test_as_many_ranks_as_micro_batches_have_work():
    assert idle_ranks(4, Sampler(1000, 100, 25, seed=0)) == []


def test_ranks_without_work_are_named_with_the_option_that_gives_them_some():
    (line,) = idle_ranks(8, Sampler(1000, 100, 25, seed=0))
    assert "4 micro-batches a step leave ranks 0, 2, 4, 6 of 8 without work" in line
    assert "--micro-batch-size 12 has work for all" in line
    assert idle_ranks(8, Sampler(1000, 100, 12, seed=0)) == []


def test_where_no_size_of_a_micro_batch_has_work_for_all():
    (line,) = idle_ranks(8, Sampler(5, 100, 1, seed=0))
    assert "raise --batch-size" in line


def test_another_number_of_hosts_than_expected_ends_the_run():
    config = TrainConfig(expect_hosts=2)
    with pytest.raises(PlacementError, match=r"found 1 rank on 1 host.*expected 2 hosts"):
        job_of(config, SerialCommunicator(), {}, lambda: False)
