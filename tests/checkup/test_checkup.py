"""What the doctor makes of what it sees: hosts, cores, kernels, clocks, links, places to write."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest

from distnet.checkup import machine
from distnet.checkup.finding import Finding, Level, error, lines, merged, ok, warning, will_train
from distnet.checkup.links import Link, judged, pairings, pairs, time_of_sum
from distnet.checkup.machine import cache, memory, results, shared_memory
from distnet.checkup.ranks import Rank, alike, clock_skew, clocks, cores, hosts
from distnet.training.known_answer import ForeignArithmeticError

RANK = Rank("a", frozenset({0, 1, 2, 3}), 4, None, {"numpy": "2.4", "blas": "x"}, "c0de", "3", 0.0)


def ranks(*hosts: str, **values: object) -> list[Rank]:
    return [replace(RANK, host=host, **values) for host in hosts]


def levels(findings: list[Finding]) -> list[Level]:
    return [each.level for each in findings]


@pytest.mark.parametrize(
    ("everyone", "expected", "environ", "level"),
    [
        (ranks("a", "b"), 0, {}, Level.OK),
        (ranks("a", "b"), 2, {}, Level.OK),
        (ranks("a", "a"), 2, {}, Level.ERROR),
        (ranks("a", "a"), 0, {"SLURM_JOB_NUM_NODES": "2"}, Level.WARNING),
        (ranks("a", "b"), 0, {"SLURM_JOB_NUM_NODES": "2"}, Level.OK),
        (ranks("a", "a"), 0, {"FLUX_JOB_NNODES": "many"}, Level.OK),
    ],
)
def test_hosts(everyone, expected, environ, level):
    found = hosts(everyone, "somewhere", expected, environ)
    assert found.level == level
    assert bool(found.cure) == (level != Level.OK)


def test_hosts_of_pbs_and_the_variable_that_open_mpi_5_does_not_read(tmp_path):
    nodes = tmp_path / "nodes"
    nodes.write_text("a\na\nb\n")
    environ = {"PBS_NODEFILE": str(nodes), "OMPI_MCA_orte_default_hostfile": "hosts"}
    found = hosts(ranks("a", "a"), "1 host", 0, environ)
    assert found.text.endswith("while PBS_NODEFILE says 2 hosts")
    assert "export PRTE_MCA_prte_default_hostfile" in found.cure


@pytest.mark.parametrize(
    ("everyone", "text"),
    [
        (ranks(*"aaaa"), "4 ranks on 4 of 4 cores of a"),
        (ranks(*"aaaaa"), "5 ranks on 4 of 4 cores of a: they take turns"),
        (ranks(*"aa", cores=frozenset({1})), "2 ranks on 1 of 4 cores of a: the launcher has"),
        (ranks(*"aa", quota=1.5), "2 ranks on 1.5 of 4 cores of a: they take turns"),
        (ranks(*"ab"), "each of 2 ranks has one to itself, on 2 hosts"),
        (ranks(*"abbbbb"), "5 ranks on 4 of 4 cores of b: they take turns"),
    ],
)
def test_cores(everyone, text):
    (found,) = cores(everyone)
    assert found.text.startswith(text)
    assert bool(found.cure) == (":" in text)


def test_kernels_and_code_are_alike_or_named():
    assert levels(list(alike(ranks("a")))) == []
    assert levels(list(alike(ranks("a", "b")))) == [Level.OK]
    other = replace(RANK, fingerprint={"numpy": "2.4", "blas": "y"}, code="c1de")
    kernels, code = alike([RANK, other, RANK])
    assert kernels.text == "the ranks differ in blas: x on ranks 0, 2; y on rank 1"
    assert code.text == "the ranks differ in distnet's code: c0de on ranks 0, 2; c1de on rank 1"
    assert levels([kernels, code]) == [Level.ERROR, Level.ERROR]


def test_clocks():
    assert clocks(ranks("a", "b")).level == Level.OK
    found = clocks([RANK, replace(RANK, host="b", skew=-7.25)])
    assert found.level == Level.WARNING
    assert found.text.startswith("that of b (rank 1) is 7.2 s behind that of rank 0")


@pytest.mark.parametrize("size", range(1, 9))
def test_every_two_ranks_meet_once(size):
    met = [tuple(sorted(pair)) for pairing in pairings(size) for pair in pairing.items()]
    assert sorted(set(met)) == list(combinations(range(size), 2))
    assert len(met) == 2 * len(set(met)), "each pair is there from both sides, once"


def test_of_many_ranks_neighbours_meet():
    met = {tuple(sorted(pair)) for pairing in pairings(11) for pair in pairing.items()}
    assert met == {(rank, rank + 1) for rank in range(10)}


def test_a_slow_link_is_named():
    fast = [Link(a, b, False, 0.01) for a, b in combinations(range(3), 2)]
    names = ["a", "b", "c", "d"]
    assert levels(list(judged(fast, names))) == [Level.OK]
    usual, slow = judged([*fast, Link(0, 3, False, 0.05)], names)
    assert slow.text == "rank 0 (a) and rank 3 (d): 1 MB in 50 ms, 20 MB/s"
    assert (usual.level, slow.level) == (Level.OK, Level.WARNING)


def test_a_link_of_100_mbit_is_slow_without_comparison():
    _, slow = judged([Link(0, 1, False, 0.09)], ["a", "b"])
    assert slow.level == Level.WARNING
    assert levels(list(judged([Link(0, 1, True, 0.09)], ["a", "a"]))) == [Level.OK]


@pytest.mark.mpi(min_size=3)
def test_sums_are_timed_by_all_ranks_alike(comm):
    found = pairs(comm, 0.05)
    assert len(found) == comm.size * (comm.size - 1) // 2
    assert all(link.within_host and link.seconds > 0 for link in found)
    assert comm.allgather(found) == [found] * comm.size
    assert time_of_sum(comm, 8, 0.01) > 0
    assert abs(clock_skew(comm)) < 60


def test_findings_of_hosts_are_merged():
    fine, bad = ok("cache", "there"), warning("cache", "gone", "make one")
    assert list(merged({"a": [fine]})) == [fine]
    (both,) = merged({"a": [fine], "b": [fine]})
    assert both.text == "there (well on 1 other host, too)"
    (one,) = merged({"a": [fine], "b": [bad]})
    assert (one.text, one.level) == ("b: gone", Level.WARNING)


def test_the_report():
    found = [ok("python", "3"), warning("cache", "gone", "make one"), error("mpi", "two", "one")]
    assert list(lines(found)) == [
        "ok       python  3",
        "warning  cache   gone",
        "                 -> make one",
        "error    mpi     two",
        "                 -> one",
        "training will not work as it is, 1 error, 1 warning",
    ]
    assert not will_train(found)
    assert will_train(found[:2])


def test_places_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert cache(tmp_path / "new").level == Level.OK
    assert cache(file).level == cache(file / "below").level == cache(None).level == Level.WARNING
    assert results(tmp_path).level == Level.OK
    assert results(tmp_path / "none").level == Level.ERROR


def test_the_threads_of_the_blas_of_macos_are_what_it_was_told(monkeypatch):
    """They cannot be counted; and whoever has done what helps is not told to do it."""
    found = dict.fromkeys(("numpy", "blas_version", "blas_architecture", "blas_threads"), "unknown")
    monkeypatch.setattr(machine, "numerics_fingerprint", lambda: {**found, "blas": "accelerate"})
    assert machine.kernels({}).level == Level.WARNING
    assert machine.kernels({"VECLIB_MAXIMUM_THREADS": "1"}).level == Level.OK
    monkeypatch.setattr(machine, "numerics_fingerprint", lambda: {**found, "blas": "another"})
    assert machine.kernels({"VECLIB_MAXIMUM_THREADS": "1"}).level == Level.WARNING


def test_little_shared_memory(tmp_path, monkeypatch):
    assert shared_memory(tmp_path / "none", 4).level == Level.OK
    assert shared_memory(tmp_path, 1).level == Level.OK
    small = SimpleNamespace(f_bavail=64, f_frsize=1 << 20)  # Docker's default
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    assert shared_memory(tmp_path, 8).level == Level.OK
    found = shared_memory(tmp_path, 9)
    assert "has 64 MiB free, 9 ranks may need 72" in found.text
    assert found.level == Level.WARNING


def test_little_memory(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("400000000\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.available_bytes() == 600_000_000
    assert machine.usable_cores()[1] == 1.5
    assert memory(2).level == Level.OK
    assert memory(3).level == Level.WARNING
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.available_bytes() != 600_000_000
    assert machine.usable_cores()[1] is None


def test_a_machine_that_portable_arithmetic_does_not_suit(monkeypatch):
    assert machine.arithmetic().level is Level.OK

    def fail():
        raise ForeignArithmeticError("portable arithmetic: found that 1 + 1 is 3")

    monkeypatch.setattr(machine, "check_machine", fail)
    found = machine.arithmetic()
    assert (found.level, found.text) == (
        Level.WARNING,
        "portable arithmetic: found that 1 + 1 is 3",
    )
