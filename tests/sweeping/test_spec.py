"""The file of a sweep becomes trials, each a configuration of its own, and errors are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from distnet.base.options import ConfigError
from distnet.sweeping.spec import MAX_NAME, trials_of


@pytest.fixture
def trials(tmp_path):
    """`trials(text)`: those of a file with that text."""

    def read(text):
        (tmp_path / "spec.toml").write_text(text)
        return trials_of(tmp_path / "spec.toml", Path("out"))

    return read


def test_a_grid_has_every_combination(trials):
    found = trials('steps = 7\n[grid]\noptimizer = ["sgd", "adam"]\nlr = [0.1, 1]\nseed = 3')
    assert [each.name for each in found] == [
        "optimizer=sgd,lr=0.1",
        "optimizer=sgd,lr=1.0",
        "optimizer=adam,lr=0.1",
        "optimizer=adam,lr=1.0",
    ]
    assert [each.config.optimizer for each in found] == ["sgd", "sgd", "adam", "adam"]
    assert {(each.config.steps, each.config.seed) for each in found} == {(7, 3)}
    assert found[0].chosen == {"optimizer": "sgd", "lr": 0.1}
    assert found[0].path == Path("out/optimizer=sgd,lr=0.1") == Path(found[0].config.out)


def test_grids_may_be_several_with_options_of_their_own(trials):
    found = trials('[[grid]]\noptimizer = "momentum"\nmomentum = [0.5, 0.9]\n[[grid]]\nlr = 0.1')
    assert [each.name for each in found] == [
        "optimizer=momentum,momentum=0.5",
        "optimizer=momentum,momentum=0.9",
        "lr=0.1",
    ]
    assert found[2].config.momentum is None


def test_options_are_built_upon_those_of_a_base(trials, tmp_path):
    (tmp_path / "base.toml").write_text('lr = 0.5\noptimizer = "sgd"\nout = "x"\nbatch_size = 40')
    found = trials('base = "base.toml"\nepochs = 2\n[grid]\noptimizer = ["sgd", "adam"]')
    sgd, adam = (each.config for each in found)
    assert (sgd.lr, sgd.epochs, sgd.batch_size, sgd.micro_batch_size) == (0.5, 2, 40, 20)
    assert adam.lr != 0.5, "a rate that was meant for SGD"
    assert adam.out == "out/optimizer=adam"


def test_epochs_are_tried_in_place_of_the_steps_that_all_share(trials):
    """All trials had the same steps, and so the same bits."""
    found = trials("steps = 7\n[grid]\nepochs = [1, 2]")
    assert [(each.config.epochs, each.config.steps) for each in found] == [(1, 0), (2, 0)]


def test_lists_and_switches_are_values_too(trials):
    found = trials(
        'schedule = "step"\n[grid]\nmilestones = [[0.5], [0.5, 0.75]]\naugment-flip = [true, false]'
    )
    assert [each.name for each in found] == [
        "milestones=0.5,augment-flip=true",
        "milestones=0.5,augment-flip=false",
        "milestones=0.5-0.75,augment-flip=true",
        "milestones=0.5-0.75,augment-flip=false",
    ]
    assert found[2].config.milestones == (0.5, 0.75)
    assert found[2].config.augment_flip


RANDOM = """
seed = 5
[random]
trials = {trials}
lr = {{ low = 1e-4, high = 1e-1, log = true }}
weight_decay = {{ low = 0.0, high = 0.01 }}
batch_size = {{ low = 10, high = 12 }}
optimizer = ["sgd", "adam"]
{more}
"""


def test_random_options_are_drawn_from_their_ranges(trials):
    found = [each.chosen for each in trials(RANDOM.format(trials=400, more=""))]
    rates = [each["lr"] for each in found]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert sum(rate < 1e-3 for rate in rates) == pytest.approx(133, abs=40), "a third a decade"
    assert all(0 <= each["weight_decay"] <= 0.01 for each in found)
    assert {each["batch_size"] for each in found} == {10, 11, 12}
    assert {each["optimizer"] for each in found} == {"sgd", "adam"}
    assert all(float(f"{rate:.3g}") == rate for rate in rates)


def test_more_trials_and_options_change_nothing_that_was_drawn(trials):
    few = [dict(each.chosen) for each in trials(RANDOM.format(trials=5, more=""))]
    many = trials(RANDOM.format(trials=9, more="augment_shift = [0, 1]"))
    assert [{name: each.chosen[name] for name in few[0]} for each in many[:5]] == few


def test_no_trial_is_drawn_twice(trials):
    found = trials("[random]\ntrials = 12\nseed = [1, 2, 3, 4]\nbatch_size = {low=8, high=10}")
    assert len({each.name for each in found}) == 12


def test_long_names_are_cut_and_differ(trials):
    names = [letter * 90 + "/" + end for letter in "ab" for end in "cd" * 20]
    found = trials(f"[grid]\nfreeze = {[*dict.fromkeys(names), 'e' * 200]}\nseed = [1, 2]")
    assert len({each.name for each in found}) == 10
    assert all(len(each.name) <= MAX_NAME and "/" not in each.name for each in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 3", "found neither of [grid] and [random], expected one of them"),
        ("[grid]\nlr=1\n[random]\ntrials=1", "found both of [grid] and [random]"),
        ("grid = 3", "grid: found 3, expected a table of options"),
        ("[grid]", "grid: found {}, expected a table of options"),
        ("grid = []", "grid: found [], expected a table of options"),
        ("stesp = 3\n[grid]\nlr = 1", "unknown key 'stesp'; did you mean steps?"),
        ("[grid]\nlr = []", "grid: lr: found no value, expected some"),
        ("[grid]\nlr = [0.1, -1]", "grid: lr: found -1.0, expected a number > 0"),
        ("[grid]\nopt = 3", "grid: unknown key 'opt'"),
        ("[grid]\nkeep = [1, 2]", "grid: keep: found an option that does not decide the result"),
        ("[grid]\nlr = [0.1, 0.1]", "found trial lr=0.1 twice, expected trials that differ"),
        ("[grid]\nlr = [0.1, 0.1, 0.2]", "found trial lr=0.1 twice, expected trials that differ"),
        (
            '[grid]\noptimizer = ["sgd", "adam"]\nmomentum = 0.5',
            "trial optimizer=sgd: --momentum: optimizer sgd does not take it; momentum",
        ),
        (f"[grid]\nseed = {[*range(200)]}\nsteps = {[*range(99)]}", "found 19,800 combinations"),
        ("[random]\nlr = [1]", "random: trials: found None, expected a whole number of 1 to 10000"),
        ("[random]\ntrials = 3\nseed = [1, 2]", "trials: found 3, but 2 are all that differ"),
        ("[random]\ntrials = 3", "random: found no option, expected some that are drawn"),
        ("[random]\ntrials = 3\nlr = {low=1}", "random: lr: found {'low': 1}, expected low, high"),
        ("[random]\ntrials = 3\nlr = {low=2, high=1}", "expected numbers, low below high"),
        ("[random]\ntrials=3\nseed = {low=0, high=9, log=true}", "found low 0 with log"),
        ("[random]\ntrials = 3\nlr = {low=0, high=1}", "random: lr: found 0.0, expected a number"),
        (
            "[grid]\nbatch_size = 20\nbatch-size = 40",
            "batch_size: found it twice, once with a dash",
        ),
        ("[grid]\nsteps = 2\nepochs = [1, 2]", "grid: epochs: found steps beside it"),
        (
            "[grid]\nvalidation = [0.0, 0.1]",
            "validation: found 0 and others, expected it in all trials or in none",
        ),
        ("base = 3\n[grid]\nlr = 1", "base: found 3, expected the name of a file"),
        ("lr = ", "not valid TOML"),
    ],
)
def test_what_cannot_be_is_one_line(trials, tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        trials(text)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/spec.toml: ")
    assert message in line and "\n" not in line
