"""What a run tells its callbacks, in which order, and what they may decide."""

from __future__ import annotations

import numpy as np
import pytest

import distnet
from distnet.parallel import SerialCommunicator
from distnet.training.callbacks import EarlyStopping
from distnet.training.run import Callback

RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2)]


class Told(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def begin(self, run):
        self.events.append(("begin", run.num_done))

    def stepped(self, run, result):
        assert result.step == run.num_done - 1
        self.events.append(("stepped", run.num_done))

    def evaluated(self, run, evaluated):
        assert evaluated == run.record.evaluated
        self.events.append(("evaluated", run.num_done))

    def end(self, run):
        self.events.append(("end", run.num_done))


def samples(n: int = 12):
    rng = np.random.Generator(np.random.Philox(key=2))
    return rng.random((n, 4)), rng.integers(0, 3, n)


def fitted(callbacks, comm=None, **settings):
    network = distnet.Network([distnet.Linear(3)], (4,), seed=1)
    data = samples()
    settings = {"batch_size": 5, "micro_batch_size": 2, "lr": 0.1} | settings
    sets = {"same": data}
    return distnet.fit(network, *data, evaluate_on=sets, callbacks=callbacks, comm=comm, **settings)


def test_the_order_of_what_is_told():
    told = Told()
    fitted([told], epochs=2)  # three steps each
    expected = [("begin", 0), ("evaluated", 0)]
    for n in range(1, 7):
        expected += [("stepped", n)] + [("evaluated", n)] * (n % 3 == 0)
    expected += [("end", 6)]
    assert told.events == expected


class Scores(Callback):
    """Makes up how good each evaluation was."""

    def __init__(self, monkeypatch, scores) -> None:
        scores = iter(scores)
        score = distnet.Classification.score
        monkeypatch.setattr(distnet.Classification, "score", lambda self, metrics: next(scores))
        assert score is not distnet.Classification.score


@pytest.mark.parametrize(
    ("scores", "patience", "last"),
    [
        ([0, 1, 2, 3, 4], 1, 4),
        ([0, 1, 1, 3, 4], 1, 2),  # no better is not good enough
        ([0, 2, 1, 2, 3], 2, 3),
        ([0, 2, 1, 3, 2], 2, 4),
    ],
)
def test_a_run_ends_when_it_gets_no_better(monkeypatch, scores, patience, last):
    Scores(monkeypatch, scores)
    history = fitted([EarlyStopping(patience)], epochs=4)
    assert history.num_updates[-1] == 3 * last
    ended_early = last < 4 or scores[last] <= max(scores[:last])
    times = "1 evaluation" if patience == 1 else f"{patience} evaluations"
    expected = f"no better for {times}" if ended_early and last < 4 else ""
    assert history.ended == expected


def test_patience_lasts_over_calls_that_go_on():
    """Each began anew, so that calls of one epoch never ended."""
    network, history = distnet.Network([distnet.Linear(3)], (4,), seed=1), None
    inputs, labels = samples()
    sets = {"same": (inputs, labels)}
    settings = {"batch_size": 5, "lr": 0.0, "callbacks": [EarlyStopping(2)]}
    ended = []
    for _ in range(3):
        history = distnet.fit(
            network, inputs, labels, epochs=1, after=history, evaluate_on=sets, **settings
        )
        ended.append(history.ended)
    assert ended == ["", "no better for 2 evaluations", ""]  # the last is another phase
    sets = {"other": (inputs, labels)}  # better or worse than what was evaluated before: unknown
    history = distnet.fit(
        network, inputs, labels, epochs=1, after=history, evaluate_on=sets, **settings
    )
    assert history.ended == ""


@pytest.mark.parametrize("num_ranks", RANKS)
def test_all_ranks_end_together(comm, num_ranks):
    settings = {"epochs": 50, "lr": 0.0}  # nothing gets better
    history = fitted([EarlyStopping(2)], comm=comm, **settings)
    assert history.num_updates == [0, 3, 6]
    alone = fitted([EarlyStopping(2)], comm=SerialCommunicator(), **settings)
    assert history == alone


class Shrinks(Callback):
    """Writes into the parameters, after it has looked what the network says."""

    def __init__(self, looks: bool) -> None:
        self.looks = looks

    def stepped(self, run, result):
        if self.looks:
            run.trainer.objective.network.predict(np.ones((4, 2, 4, 4), np.float32))
        run.trainer.parameters.values *= 0.9


def test_what_a_callback_writes_is_what_the_next_step_begins_with():
    """It was the weights that a convolution had derived for the look."""
    rng = np.random.default_rng(0)
    data = rng.random((12, 2, 4, 4), np.float32), rng.integers(0, 3, 12)
    histories = []
    for looks in (False, True):
        layers = [distnet.Conv2d(4, 3, pad=1), distnet.ReLU(), distnet.Linear(3)]
        settings = dict(epochs=2, batch_size=4, lr=0.1, callbacks=[Shrinks(looks)])
        histories.append(distnet.fit(distnet.Network(layers, (2, 4, 4)), *data, **settings))
    assert histories[0] == histories[1]


class EndsOnOne(Callback):
    """As a clock or a file would have it."""

    def __init__(self, rank: int, when: str) -> None:
        self.rank, self.when = rank, when

    def _tell(self, run, when) -> None:
        if run.comm.rank == self.rank and when == self.when:
            run.end_early(f"rank {self.rank}")

    def begin(self, run):
        self._tell(run, "begin")

    def stepped(self, run, result):
        self._tell(run, f"stepped {run.num_done}")

    def evaluated(self, run, evaluated):
        self._tell(run, f"evaluated {run.num_done}")


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize(
    ("when", "evaluated"),
    [
        ("begin", [0]),
        ("evaluated 0", [0]),
        ("stepped 2", [0, 2]),
        ("stepped 3", [0, 3]),
        ("evaluated 3", [0, 3]),
    ],
)
@pytest.mark.parametrize("has_it", [[0, 1, 2], [1]])
def test_what_one_rank_ends_is_ended_on_all(comm, when, evaluated, has_it):
    """The others waited for it for ever."""
    callbacks = [EndsOnOne(1, when)] if comm.rank in has_it else []
    history = fitted(callbacks, comm=comm, epochs=2)
    assert history.num_updates == evaluated
    assert history.num_steps == evaluated[-1]
    assert history.ended == "rank 1"
    histories = comm.allgather(history)
    assert histories == [history] * comm.size


@pytest.mark.parametrize("patience", [0, 2.5, "3"])
def test_patience_is_a_whole_number(patience):
    with pytest.raises(ValueError, match=f"found patience {patience!r}, expected a whole number"):
        EarlyStopping(patience)
