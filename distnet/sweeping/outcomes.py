"""How each trial of a sweep stands, as its directory tells: whoever has computed it, and when."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distnet.base.files import write_atomically
from distnet.base.options import ConfigError, read_toml, shown
from distnet.sweeping.spec import Trial, text_of
from distnet.training.config import TrainConfig, config_of, identity

PROBLEM = "failed.txt"  # in the directory of a trial: the line that says why
SUMMARY = "summary.json"  # which a run writes at its end
FINISHED, FAILED, UNFINISHED = "finished", "failed", "not finished"
FIGURES = ("train_loss", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Outcome:
    """A trial and what came of it; summary: {} unless it is finished; problem: why it failed."""

    trial: Trial
    state: str
    summary: dict[str, Any]
    problem: str = ""

    @property
    def measured_by(self) -> str:
        """The figure by which trials are compared: on the validation data, where there are some."""
        return "valid_accuracy" if self.trial.config.validation else "test_accuracy"

    @property
    def accuracy(self) -> float:
        """The accuracy by which trials are ranked, -1 if there is none."""
        found = self.summary.get(self.measured_by)
        return -1.0 if found is None else float(found)


def outcome_of(trial: Trial) -> Outcome:
    """What is in the directory of the trial."""
    with contextlib.suppress(OSError, ValueError):
        summary = json.loads((trial.path / SUMMARY).read_bytes())
        finished = Outcome(trial, FINISHED, summary)
        if isinstance(summary, dict) and isinstance(summary.get(finished.measured_by), float):
            return finished  # damaged, it is trained again
    with contextlib.suppress(OSError):
        return Outcome(trial, FAILED, {}, (trial.path / PROBLEM).read_text().strip())
    return Outcome(trial, UNFINISHED, {})


def note_problem(trial: Trial, problem: str) -> None:
    """Leaves in its directory why the trial has failed."""
    trial.path.mkdir(parents=True, exist_ok=True)
    write_atomically(trial.path / PROBLEM, f"{problem}\n".encode())


def forget_problem(trial: Trial) -> None:
    """Before the trial is tried again; a summary that is there says nothing, see `outcome_of`."""
    (trial.path / PROBLEM).unlink(missing_ok=True)
    (trial.path / SUMMARY).unlink(missing_ok=True)


def to_go_on(trial: Trial) -> TrainConfig:
    """The configuration by which the trial begins, or goes on from its newest checkpoint."""
    if any((trial.path / "checkpoints").glob("step-*.safetensors")):
        return replace(trial.config, resume="latest")
    return replace(trial.config, overwrite=(trial.path / "config.toml").exists())


def check_earlier(trial: Trial) -> None:
    """Raises ConfigError if what is in its directory was trained with other options."""
    if not (trial.path / "config.toml").is_file():
        return
    found = identity(config_of(read_toml(TrainConfig, str(trial.path / "config.toml"))))
    wanted = identity(trial.config)
    for name in dict.fromkeys([*wanted, *found]):
        if found.get(name) != wanted.get(name):
            raise ConfigError(
                f"{trial.path}: found a run with {name} {shown(found.get(name))}, expected "
                f"{shown(wanted.get(name))}; give the sweep another --out"
            )


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The best first, then those that failed, then those that are not finished."""
    order = [FINISHED, FAILED, UNFINISHED]
    return sorted(outcomes, key=lambda each: (order.index(each.state), -each.accuracy))


def options_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The options in which the trials differ."""
    return list(dict.fromkeys(name for each in outcomes for name in each.trial.chosen))


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A row for each trial, in the order of `outcomes`: its options, figures and hash."""
    options = options_of(outcomes)
    figures = [name for name in FIGURES if any(name in each.summary for each in outcomes)]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", *options, "state", *figures, "params_sha256", "problem"])
    for each in outcomes:
        chosen = [text_of(each.trial.chosen.get(name, "")) for name in options]
        numbers = [each.summary.get(name, "") for name in figures]
        digest = each.summary.get("params_sha256", "")
        rows.writerow([each.trial.name, *chosen, each.state, *numbers, digest, each.problem])
    write_atomically(path, text.getvalue().encode())
