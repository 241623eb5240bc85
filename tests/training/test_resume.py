"""Stopped after any step and resumed, a run leaves what it would have left without the stop."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distnet
from distnet.base.options import read_unchecked
from distnet.data import load_dataset
from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES
from distnet.data.own import NAMES
from distnet.parallel import RankError, SerialCommunicator
from distnet.train import train
from distnet.training.files.checkpoint import load, save
from distnet.training.files.checkpoint_directory import best_path, checkpoint_path
from distnet.training.fingerprint import numerics_fingerprint
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer

STEPS = 8  # two epochs of 3 steps, and 2 more
FLAGS = "--model two_layer --batch-size 8 --micro-batch-size 3 --log-every 2 --lr 0.1 --keep 0"
# Times, and how the work was shared out since the process started.
VARIES = {
    *("images_per_second", "wall_seconds", "elapsed_seconds", "wait_share", "compute_seconds"),
    *("compute_deviation", "bytes_per_step", "slowest_rank", "micro_batches", "time", "seconds"),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 images of 5 x 5 pixels: the last batch of an epoch has 5 samples."""
    directory = tmp_path_factory.mktemp("images")
    rng = np.random.Generator(np.random.Philox(key=4))
    for name in IDX_FILES:
        shape = (21, 5, 5) if "images" in name else (21,)
        array = rng.integers(0, 256 if "images" in name else 3, shape, np.uint8)
        (directory / name).write_bytes(format_idx(array))
    return directory


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """`run(out, *flags)` trains in this process and returns the exit code."""

    def command(out: Path, *flags: str) -> int:
        files = ["--data-dir", str(data_dir), "--out", str(out)]
        argv = ["train", *FLAGS.split(), "--steps", str(STEPS), *files, *flags]
        monkeypatch.setattr(sys, "argv", argv)
        return train(SerialCommunicator())

    return command


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in VARIES}


def metrics(out: Path) -> list[dict[str, Any]]:
    """Without those of checkpoints, of which a run that was stopped has one more."""
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [without_times(line) for line in lines if line["event"] != "checkpoint"]


def summary(out: Path) -> dict[str, Any]:
    return without_times(json.loads((out / "summary.json").read_text()))


def final_checkpoint(out: Path) -> bytes:
    return checkpoint_path(out / "checkpoints", STEPS).read_bytes()


def best(out: Path) -> bytes:
    return best_path(out / "checkpoints").read_bytes()


@pytest.fixture
def whole(run, tmp_path: Path) -> Path:
    out = tmp_path / "whole"
    assert run(out) == 0
    return out


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_stopped_after_any_step(run, whole, tmp_path, stop):
    out = tmp_path / "stopped"
    assert run(out, "--stop-at", str(stop)) == 75
    assert not (out / "summary.json").exists()
    assert run(out, "--resume") == 0
    for read in (final_checkpoint, metrics, summary, best):
        assert read(out) == read(whole)


@pytest.fixture
def ask_to_stop(monkeypatch: pytest.MonkeyPatch):
    """`ask_to_stop(when, step)` has a signal sent during that step, or the evaluation after it.

    It returns a list with an entry for each piece of an evaluation that is measured after that.
    """

    def prepare(when: str, step: int) -> list[slice]:
        make, serve = Trainer.step, Feed.evaluation
        num_made, pieces = 0, []

        def made(trainer: Trainer, number: int, *args: Any) -> Any:
            nonlocal num_made
            num_made = number + 1
            if when == "step" and num_made == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return make(trainer, number, *args)

        def served(feed: Feed, samples: slice) -> Any:
            if num_made == step:
                pieces.append(samples)
                if when == "evaluation" and len(pieces) == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
            return serve(feed, samples)

        monkeypatch.setattr(Trainer, "step", made)
        monkeypatch.setattr(Feed, "evaluation", served)
        return pieces

    return prepare


def test_an_evaluation_that_is_made_again_is_told_once(run, whole, tmp_path, ask_to_stop):
    """Stopped before it, the run made it, and was killed before another checkpoint was there."""
    out, checkpoints = tmp_path / "stopped", tmp_path / "stopped" / "checkpoints"
    ask_to_stop("step", 3)
    assert run(out) == 75
    stopped = checkpoint_path(checkpoints, 3).read_bytes()
    assert run(out, "--resume", "--stop-at", "5") == 75
    for path in (best_path(checkpoints), checkpoint_path(checkpoints, 5)):
        path.unlink()
    checkpoint_path(checkpoints, 3).write_bytes(stopped)
    assert run(out, "--resume") == 0
    for read in (final_checkpoint, metrics, summary, best):
        assert read(out) == read(whole)


@pytest.mark.parametrize("when", ["step", "evaluation"])
@pytest.mark.parametrize("step", [3, 6, STEPS])  # after which the test data are evaluated
@pytest.mark.parametrize("flags", ["", "--validation 0.15 --patience 5", "--ema 0.9"])
def test_a_wish_to_stop_does_not_wait_for_an_evaluation(
    run, tmp_path, ask_to_stop, monkeypatch, when, step, flags
):
    """The next part of the run makes it, first of all."""
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert run(whole, *flags.split()) == 0
    measured = ask_to_stop(when, step)
    assert run(out, *flags.split()) == 75
    assert len(measured) == (when == "evaluation")
    monkeypatch.undo()
    assert not (out / "summary.json").exists()
    assert run(out, "--resume", *flags.split()) == 0
    for read in (final_checkpoint, metrics, summary, best):
        assert read(out) == read(whole)


def test_the_summary_of_an_average_has_both_hashes(run, whole, tmp_path):
    out = tmp_path / "averaged"
    assert run(out, "--ema", "0.9") == 0
    hashes = summary(out)
    assert hashes["params_sha256"] == summary(whole)["params_sha256"]  # it does not train
    network = distnet.load(checkpoint_path(out / "checkpoints", STEPS))
    assert hashes["average_sha256"] == network.parameters.sha256() != hashes["params_sha256"]
    assert "average_sha256" not in summary(whole)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_after_any_checkpoint(run, whole, tmp_path, step):
    """What a killed run wrote after its last checkpoint is written once more, not twice."""
    out = tmp_path / "killed"
    assert run(out, "--checkpoint-every", "1") == 0
    for path in (out / "checkpoints").glob("step-*"):
        if path != checkpoint_path(out / "checkpoints", step):
            path.unlink()
    (out / "summary.json").unlink()
    assert run(out, "--resume") == 0
    for read in (final_checkpoint, metrics, summary):
        assert read(out) == read(whole)


def test_resumed_elsewhere_from_a_file_by_its_name(run, whole, tmp_path):
    out = tmp_path / "elsewhere"
    assert run(out, "--resume", str(checkpoint_path(whole / "checkpoints", 3))) == 0
    assert final_checkpoint(out) == final_checkpoint(whole)
    assert metrics(out) == [line for line in metrics(whole) if line["step"] > 3]
    assert summary(out) == summary(whole)


def files(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [(), ("--stop-at", "4")], ids=["finished", "unfinished"])
def test_an_earlier_run_is_not_written_over_unasked(run, tmp_path, flags):
    out = tmp_path / "used"
    run(out, *flags)
    before = files(out)
    with pytest.raises(RankError, match=r"in .*used; go on with it by --resume, replace it by --o"):
        run(out, "--seed", "1")
    assert files(out) == before


def test_a_run_that_starts_anew_is_never_resumed_from_what_was_there(run, whole, tmp_path):
    out = tmp_path / "used"
    assert run(out, "--seed", "1") == 0
    assert run(out, "--overwrite", "--stop-at", "2") == 75
    assert not (out / "summary.json").exists()
    assert run(out, "--resume") == 0
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    for read in (final_checkpoint, metrics, summary, best):
        assert read(out) == read(whole)


def test_a_run_that_goes_back_is_never_resumed_from_what_came_after(run, whole, tmp_path):
    out = tmp_path / "back"
    assert run(out, "--checkpoint-every", "1", "--stop-at", "7") == 75
    third = checkpoint_path(out / "checkpoints", 3)
    assert run(out, "--resume", str(third), "--stop-at", "4") == 75
    assert not checkpoint_path(out / "checkpoints", 5).exists()
    assert run(out, "--resume") == 0
    for read in (final_checkpoint, metrics, summary, best):
        assert read(out) == read(whole)


def test_what_came_after_is_kept_each_time_with_what_was_told_of_it(run, tmp_path):
    out = tmp_path / "back"
    assert run(out, "--checkpoint-every", "1") == 0
    first, second = (checkpoint_path(out / "checkpoints", step) for step in (3, 2))
    told = (out / "metrics.jsonl").read_bytes()
    assert run(out, "--resume", str(first), "--stop-at", "4") == 75
    assert run(out, "--resume", str(second), "--stop-at", "3") == 75
    aside, again = (out / "checkpoints" / name for name in ("set-aside", "set-aside-2"))
    assert (aside / "metrics.jsonl").read_bytes() == told
    assert (aside / "summary.json").exists() and not (again / "summary.json").exists()
    steps = [[path.name for path in sorted(place.glob("step-*"))] for place in (aside, again)]
    assert [len(names) for names in steps] == [5, 2]


def test_a_finished_run_that_is_resumed_is_left_as_it_is(run, whole, capsys):
    before = files(whole)
    assert run(whole, "--resume") == 0
    assert files(whole) == before
    assert f"this run is finished, nothing is changed; see {whole}" in capsys.readouterr().out
    assert run(whole, "--resume", "--reduction", "exact32") == 0
    assert "computed with reduction" not in capsys.readouterr().err, "nothing goes on"


def test_a_checkpoint_is_not_resumed_over_another_run(run, whole, tmp_path):
    out = tmp_path / "other"
    assert run(out, "--seed", "1") == 0
    with pytest.raises(RankError, match="found the results of a run, finished"):
        run(out, "--resume", str(checkpoint_path(whole / "checkpoints", 3)))


def test_what_was_told_before_the_first_checkpoint_is_set_aside(run, whole, tmp_path):
    out = tmp_path / "killed"
    (out / "checkpoints").mkdir(parents=True)
    told = b'{"event": "train", "step": 2}\n'
    (out / "metrics.jsonl").write_bytes(told)
    assert run(out) == 0
    assert (out / "checkpoints" / "set-aside" / "metrics.jsonl").read_bytes() == told
    assert metrics(out) == metrics(whole)


def test_resumed_with_other_buckets(run, whole, tmp_path):
    out = tmp_path / "buckets"
    assert run(out, "--stop-at", "4", "--bucket-bytes", "1024") == 75
    assert run(out, "--resume", "--bucket-bytes", "100000") == 0
    assert final_checkpoint(out) == final_checkpoint(whole)


@pytest.mark.parametrize("reductions", [("exact", "exact32"), ("exact32", "float32")])
def test_resumed_with_another_reduction(run, tmp_path, capsys, reductions):
    """It goes on, to another result, and says so."""
    before, now = reductions
    out = tmp_path / "reductions"
    assert run(out, "--stop-at", "4", "--reduction", before) == 75
    assert run(out, "--resume", "--reduction", now) == 0
    assert f"step 4 was computed with reduction {before}, and" in capsys.readouterr().err
    final = load(checkpoint_path(out / "checkpoints", STEPS))
    assert final.config["reduction"] == now
    assert ("sum.scale_bits" in final.state) == (now == "exact32")
    assert [line["step"] for line in metrics(out) if line["event"] == "train"] == [2, 4, 6, 8]


def test_a_damaged_checkpoint_costs_steps_and_a_warning_but_no_bits(run, whole, tmp_path, capsys):
    out = tmp_path / "damaged"
    assert run(out, "--stop-at", "5") == 75
    newest = checkpoint_path(out / "checkpoints", 5)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert run(out, "--resume") == 0
    assert f"distnet: warning: {newest}: damaged" in capsys.readouterr().err
    for read in (final_checkpoint, metrics, summary):
        assert read(out) == read(whole)


def test_where_all_checkpoints_are_damaged_one_line_says_so(run, tmp_path):
    out = tmp_path / "damaged"
    assert run(out, "--stop-at", "5") == 75
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RankError) as refused:
        run(out, "--resume")
    what = r"found no valid checkpoint \(.*found 0 bytes.*\), expected one to go on from"
    assert re.fullmatch(f".*/checkpoints: {what}", str(refused.value))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seed 1", "seed: found 0, expected 1"),
        ("--optimizer sgd", "optimizer: found 'adam', expected 'sgd'"),
        ("--arithmetic bfloat16", "arithmetic: found 'float32', expected 'bfloat16'"),
    ],
)
def test_another_run_is_refused(run, whole, flags, message):
    with pytest.raises(RankError, match=message):
        run(whole, "--resume", *flags.split())


def test_a_checkpoint_that_does_not_know_an_option_was_computed_without_it(run, whole, tmp_path):
    """As an earlier version has written it: it goes on, unless the option is used now."""
    earlier = load(checkpoint_path(whole / "checkpoints", 3))
    later = {"freeze", "arithmetic"}
    config = {name: value for name, value in earlier.config.items() if name not in later}
    assert len(config) == len(earlier.config) - len(later)
    source, out = tmp_path / "earlier.safetensors", tmp_path / "on"
    save(source, replace(earlier, config=config))
    with pytest.raises(RankError, match="freeze: found '', expected 'linear1'"):
        run(out, "--resume", str(source), "--freeze", "linear1")
    with pytest.raises(RankError, match="arithmetic: found 'float32', expected 'portable'"):
        run(out, "--resume", str(source), "--arithmetic", "portable")
    assert run(out, "--resume", str(source)) == 0
    assert summary(out)["params_sha256"] == summary(whole)["params_sha256"]


@pytest.mark.parametrize("flags", [(), ("--stop-at", "4")], ids=["finished", "unfinished"])
def test_a_run_is_made_longer(run, tmp_path, capsys, flags):
    """It says what that means for the schedule, and is then a run of that length."""
    out = tmp_path / "longer"
    run(out, *flags)
    assert run(out, "--resume", "--steps", "12") == 0
    warning = capsys.readouterr().err
    assert "was planned for 8 steps and now for 12: the schedule is that of the longer" in warning
    steps = [line["step"] for line in metrics(out) if line["event"] == "train"]
    assert steps == [2, 4, 6, 8, 10, 12]
    rates = [line["lr"] for line in metrics(out) if line["event"] == "train"]
    assert run(tmp_path / "whole", "--steps", "12") == 0
    expected = [line["lr"] for line in metrics(tmp_path / "whole") if line["event"] == "train"]
    assert rates[-2:] == expected[-2:]
    assert summary(out)["steps"] == 12
    assert run(out, "--resume", "--steps", "12") == 0
    with pytest.raises(RankError, match="steps: found 12, expected 8"):
        run(out, "--resume")


def test_a_run_starts_from_the_weights_of_another(run, whole, tmp_path, capsys):
    out = tmp_path / "from"
    assert run(out, "--init", str(whole), "--stop-at", "1", "--lr", "1e-30") == 75
    assert f"weights from {whole} in 2 of 2 layers\n" in capsys.readouterr().out
    expected = load(best_path(whole / "checkpoints")).part("params")
    for name, array in load(checkpoint_path(out / "checkpoints", 1)).part("params").items():
        np.testing.assert_allclose(array, expected[name], atol=1e-12)


def test_a_run_that_goes_on_tells_with_which_weights_it_began(run, whole, tmp_path, capsys):
    """Whatever --init is given then: its config.toml makes the whole run again."""
    out, scratch = tmp_path / "from", tmp_path / "scratch"
    given = "--init", str(whole)
    assert run(out, *given, "--stop-at", "1") == 75
    assert run(out, "--resume", "--stop-at", "2") == 75
    assert run(out, "--resume", *given) == 0
    assert read_unchecked(out / "config.toml")["init"] == str(whole)
    assert f"--init {whole}" in (out / "README.md").read_text()
    assert "warning" not in capsys.readouterr().err
    assert run(scratch, "--stop-at", "1") == 75
    assert run(scratch, "--resume", *given) == 0
    assert read_unchecked(scratch / "config.toml")["init"] == ""
    told = "not taken, as the run goes on from its checkpoint; it began from scratch"
    assert f"warning: --init {whole}: {told}" in capsys.readouterr().err
    (scratch / "config.toml").write_text("no TOML")
    assert run(scratch, "--resume", *given) == 0, "nobody knows, so it is as the command says"


def test_an_end_that_lies_behind_is_told(run, tmp_path, capsys):
    assert run(tmp_path, "--stop-at", "5") == 75
    assert run(tmp_path, "--resume", "--stop-at", "5") == 75
    assert capsys.readouterr().err == ""
    assert run(tmp_path, "--resume", "--stop-at", "3") == 0
    told = "warning: --stop-at 3: the run is at step 5 already and goes on to its end"
    assert told in capsys.readouterr().err


def test_weights_of_quite_another_network_are_refused(run, whole, tmp_path):
    source = str(best_path(whole / "checkpoints"))
    with pytest.raises(RankError, match="found no layer with a name and shape of this network"):
        run(tmp_path / "from", "--init", source, "--hidden-size", "7")


def test_other_data_are_refused(run, whole, data_dir, tmp_path):
    other = shutil.copytree(data_dir, tmp_path / "other")
    images = other / next(iter(IDX_FILES))
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    with pytest.raises(RankError, match="data_sha256: found"):
        run(whole, "--resume", "--data-dir", str(other))


def test_classes_that_have_other_names_now_are_told(run, data_dir, tmp_path, capsys):
    images = load_dataset(data_dir=data_dir)
    path, out = tmp_path / "named.npz", tmp_path / "named"
    arrays = dict(zip(NAMES, (*images.train, *images.test), strict=True))
    for classes, flags, told in (
        (("a", "b", "c"), ["--stop-at", "4"], ""),
        (("a", "d", "c"), ["--resume"], "step 4: class 1 is 'b' there and 'd' now"),
    ):
        np.savez(path, **arrays, class_names=np.array(classes))
        run(out, "--data-dir", str(path), *flags)
        assert told in capsys.readouterr().err
    last = load(checkpoint_path(out / "checkpoints", STEPS))
    assert last.model["classes"] == ["a", "d", "c"]


def test_other_kernels_are_a_warning(run, whole, monkeypatch, capsys):
    other = {**numerics_fingerprint(), "numpy": "1.0"}
    monkeypatch.setattr("distnet.building.job.fingerprint_of", lambda device: other)
    assert run(whole, "--resume", str(checkpoint_path(whole / "checkpoints", 3))) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("distnet: warning: the result may differ in its last bits")
    assert "numpy: found 1.0, expected 2" in warning


def test_nothing_to_resume(run, tmp_path):
    with pytest.raises(RankError, match="found no checkpoint, expected one to go on from"):
        run(tmp_path / "nothing", "--resume")


def test_the_best_has_the_highest_accuracy_and_of_equals_the_lowest_loss(run, whole):
    epochs = [line for line in metrics(whole) if line["event"] == "epoch"]
    highest = max(epochs, key=lambda line: (line["test_accuracy"], -line["test_loss"]))
    assert load(best_path(whole / "checkpoints")).step == highest["step"]
    assert summary(whole)["best_step"] == highest["step"]
    assert summary(whole)["best_test_accuracy"] == highest["test_accuracy"]
