"""What students usually hand in first, and what the checks say to it."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from distnet.exercises import bit_flip, slow_link
from distnet.exercises.finding import Grade
from distnet.exercises.jobs import ALONE, run
from distnet.exercises.overlap import read_steps
from distnet.exercises.table import EXERCISES

SOLUTIONS = Path(__file__).resolve().parents[2] / "docs" / "classroom" / "solutions"


def first_not_yet(number, file):
    findings = EXERCISES[number].check(file)
    return next(each.text for each in findings if each.grade == Grade.NOT_YET)


# The exercise, what is replaced in its solution, and what the check then says; where it starts no
# run before it says so.
@pytest.mark.parametrize(
    "number, old, new, words",
    [
        (2, "max(0, ", "max(-9, ", r"hidden\(.*\) is -\d, expected 0"),
        (2, '["--bucket-bytes", "1000000000"]', "[]", "BROKEN is empty"),
        (2, "def hidden", "def hiden", "has no function hidden yet"),
        (3, "(1e8, -1e8, 1.0)", "(0.1, 0.2, 0.3)", "are both .* in float32"),
        (3, "(1e8, -1e8, 1.0)", "(1e38, 3e38, -3e38)", "stay finite"),
        (3, "2.0**-40", "2.0**-8", r"is off by 0\.\d+, expected at most 1e-06: too coarse"),
        (3, "2.0**-40", "2.0**-60", r"is off by .*: too coarse a unit loses digits, too fine"),
        (3, "raise ValueError", "return np.zeros(2, int) #", "makes an integer of nan"),
        (3, ".astype(np.int64)", "", "to_integers gives float64, expected an array of int64"),
        (3, '3": False', '3": None', r"SAME_BITS\['float32 on 1 rank and on 3'\] has to be True"),
        (4, "step % checkpoint_every", "checkpoint_every", r"steps_lost\(50, 20\) is 20"),
        (5, "[0] * len(speeds)", "[1] * len(speeds)", r"10 micro-batches in all, expected 8"),
        (5, "return found", "return found[0]", "is 4, expected a list of 2 whole numbers"),
        (5, "return found", "return [num_micro_batches, 0]", "the last rank is ready after 8, and"),
        (6, "2 * (ranks - 1) * (latency + num_bytes / rate)", "1.0", r"star_seconds\(2, .* is 1"),
        (6, "num_bytes / ranks / rate", "num_bytes / rate", r"ring_seconds\(2, .*, expected"),
        (6, "num_bytes / ranks / (compute", "num_bytes / (compute", "at that rate the ring takes"),
        (7, "NUMBER = 1", "NUMBER = -1", "NUMBER is -1, but has to be 0 or more"),
        (7, "RANK = 0", "RANK = 2", "RANK is not 2; what does the last line of `mpirun -n 3"),
        (7, "bit_length() - 1", "bit_length()", r"flipped_bit\(.*\) is 1, expected 0"),
        (8, " / sync_every", "", r"bytes_per_step\(39760, 50, 1\) is 39760, expected 795.2"),
        (8, "sync_every", "(0 * sync_every)", "has failed: ZeroDivisionError: .*, in line 6"),
    ],
)
def test_what_the_check_says(tmp_path, monkeypatch, number, old, new, words):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / EXERCISES[number].file
    text = (SOLUTIONS / file.name).read_text()
    assert old in text
    head, _, tail = text.rpartition(old)
    file.write_text(head + new + tail)
    assert re.search(words, first_not_yet(number, file))


def test_a_flip_that_is_not_where_it_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (SOLUTIONS / "flipped.py").read_text().replace("NUMBER = 1", "NUMBER = 12")
    Path("flipped.py").write_text(text)
    prepared, bit, *places = EXERCISES[7].check(Path("flipped.py"))
    told = "distnet compare runs/flip-12/healthy runs/flip-12/flipped"
    assert (prepared.grade, bit.grade) == (Grade.NOTE, Grade.RIGHT) and told in prepared.text
    assert Grade.NOT_YET in {each.grade for each in places}
    again, *_ = EXERCISES[7].check(Path("flipped.py"))
    assert again == bit, "the runs are there, and are not made a second time"


@pytest.mark.mpi_launch
def test_the_audited_run_names_the_rank_that_computes_wrongly(tmp_path):
    number = next(number for number in range(9) if bit_flip.faulty_rank(number) == 1)
    done = run(bit_flip.RANKS, bit_flip.__name__, number, cwd=tmp_path, limit=600)
    assert done.returncode and re.search(
        r"error: step \d+: rank 1 \(.*computes wrongly", done.stderr
    )
    refused = run(ALONE, bit_flip.__name__, number, cwd=tmp_path, limit=600)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith(
        "expected mpirun -n 3 python -m distnet.exercises.bit_flip NUMBER\n"
    )


@pytest.mark.mpi_launch
def test_a_rank_that_was_asked_politely(tmp_path):
    file = tmp_path / "kill.py"
    file.write_text((SOLUTIONS / "kill.py").read_text().replace("SIGKILL)", "SIGTERM)"))
    counted, asked = islice(EXERCISES[4].check(file), 2)
    assert counted.grade == Grade.RIGHT
    assert "it has saved its state, and ended with exit code 75" in asked.text


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("way", [slow_link.ring, slow_link.star])
def test_slow_links_sum_and_take_their_time(comm, monkeypatch, way):
    waited = []
    monkeypatch.setattr(slow_link.time, "sleep", waited.append)
    send = np.arange(31) + comm.rank
    receive = np.zeros(31, int)
    way(send, receive, comm.duplicate())
    assert np.array_equal(receive, sum(np.arange(31) + rank for rank in range(comm.size)))
    p, rounds = comm.size, 2 * (comm.size - 1)
    if way is slow_link.ring:
        least = rounds * slow_link.seconds_of(31 // p * 8)
        assert len(waited) == rounds and least <= sum(waited) <= 1.01 * least
    else:
        assert waited == [slow_link.seconds_of(31 * 8)] * (rounds if comm.rank == 0 else 0)


def test_steps_of_a_timeline(tmp_path):
    def span(name, ts, dur, pid=0):
        return {"name": name, "ph": "X", "pid": pid, "ts": ts, "dur": dur}

    def message(number, begin, end):
        common = {"name": "reduction", "id": f"0.{number}", "pid": 0}
        return [{**common, "ph": "b", "ts": begin}, {**common, "ph": "e", "ts": end}]

    events = [
        *(span("step 0", 0, 100), span("step 1", 200, 100), span("step 0", 0, 500, pid=1)),
        *(span("backward relu", 10, 20), span("backward conv", 40, 20), span("loss", 5, 2)),
        *(span("backward relu", 210, 20), span("backward relu", 210, 20, pid=1)),
        *(*message(0, 35, 70), *message(1, 62, 80), *message(2, 85, 90)),
        *(*message(3, 240, 250), *message(4, 260, 270)),
    ]
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"traceEvents": events}))
    first, second = read_steps(trace)
    assert first.messages == [(35e-6, 70e-6), (62e-6, 80e-6)], "the last is the tally"
    assert len(first.backward) == 2 and first.early == 1
    assert len(second.messages) == 1 and second.early == 0
