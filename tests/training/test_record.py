"""What a run has measured: exact averages, the best result, and the way through a checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distnet.nn import Linear, Network
from distnet.objectives import Classification
from distnet.training.files.checkpoint import CheckpointError
from distnet.training.record import Record
from distnet.training.step.result import RankWork, StepResult

OBJECTIVE = Classification(Network([Linear(2)], (3,)))


def step(loss: float, correct: int, num_samples: int) -> StepResult:
    counts = np.array([float(correct)])
    metrics = OBJECTIVE.metrics(loss, counts, num_samples)
    return StepResult(0, loss, counts, metrics, num_samples, lr=0.1, own=RankWork(), stop=False)


def with_epoch(record: Record, accuracy: float, number: int) -> Record:
    evaluated = {"valid": {"loss": 1 - accuracy, "accuracy": accuracy}, "test": {"loss": 9.0}}
    return record.with_step(step(0.5, 1, 2)).with_evaluation(OBJECTIVE, evaluated, number)


def test_averages_are_over_samples_and_begin_anew():
    record = Record().with_step(step(1.0, 3, 4)).with_step(step(4.0, 1, 2))
    record = record.with_evaluation(OBJECTIVE, {}, 2)
    assert record.train == {"loss": 2.0, "accuracy": 4 / 6}
    record = record.with_step(step(0.25, 5, 5)).with_evaluation(OBJECTIVE, {}, 3)
    assert record.train == {"loss": 0.25, "accuracy": 1.0}


def test_the_best_is_that_of_the_first_set_and_the_earliest_of_equals():
    record = Record()
    bests, waits = [], []
    for number, accuracy in enumerate((0.2, 0.6, 0.6, 0.5, 0.7), 1):
        record = with_epoch(record, accuracy, number)
        bests.append(record.best_step)
        waits.append(record.since_best)
    assert bests == [1, 2, 2, 2, 5]
    assert waits == [0, 0, 1, 2, 0]
    assert record.best["accuracy"] == 0.7


def test_a_score_that_is_no_number_is_not_the_best_for_good():
    record, bests = Record(), []
    for number, accuracy in enumerate((np.nan, 0.2, np.nan, 0.1), 1):
        record = with_epoch(record, accuracy, number)
        bests.append(record.best_step)
    assert bests == [1, 2, 2, 2]
    assert record.since_best == 2


def test_of_equal_scores_the_one_with_the_lowest_loss_is_the_best_and_patience_does_not_care():
    record = Record()
    bests, waits = [], []
    for number, loss in enumerate((0.3, 0.2, 0.2, 0.25, 0.1), 1):
        evaluated = {"test": {"loss": loss, "accuracy": 1.0}}
        record = record.with_evaluation(OBJECTIVE, evaluated, number)
        bests.append(record.best_step)
        waits.append(record.since_best)
    assert bests == [1, 2, 2, 2, 5]
    assert waits == [0, 1, 2, 3, 4]
    assert record.best["loss"] == 0.1


def test_it_goes_through_a_checkpoint_unchanged():
    record = with_epoch(Record(), 0.1 + 0.2, 4).with_step(step(1 / 3, 1, 3)).with_end("enough")
    assert Record.restored(json.loads(json.dumps(record.entries()))) == record


@pytest.mark.parametrize(
    "change", [{"best_step": None}, {"new": 1}, {"best_step": "2"}, {"counts": 3}]
)
def test_what_is_no_record_is_refused(change):
    entries = Record().entries() | change
    entries = {name: value for name, value in entries.items() if value is not None}
    with pytest.raises(CheckpointError, match="found record"):
        Record.restored(entries)
