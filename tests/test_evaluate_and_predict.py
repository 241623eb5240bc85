"""`distnet evaluate` and `distnet predict`, in a process and on ranks: the same numbers, told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import launching
import numpy as np
import pytest
from PIL import Image
from training_runs import ALONE, SIZES, own_lines, succeed, write_digits

import distnet
from distnet.__main__ import main
from distnet.data.formats.idx import format_idx
from distnet.evaluate import Evaluation
from distnet.objectives.confusion import Confusion, precision_recall_f1

TEST_IMAGES = "t10k-images-idx3-ubyte"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that gets most of the digits right."""
    out = tmp_path_factory.mktemp("trained") / "run"
    model = ("--model", "two_layer", "--activation", "relu", "--lr", "0.01", "--steps", "20")
    model += ("--schedule", "constant", "--augment-shift", "0")
    succeed(ALONE, *model, *SIZES, "--data-dir", data_dir, "--out", out)
    return out


def said(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    assert main(list(map(str, argv))) == 0
    return capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The one line with which a command ends, exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, argv)))
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("distnet: error: ")
    return err


def expected(run: Path, data_dir: Path) -> np.ndarray:
    """The confusion matrix, counted one by one."""
    network, data = distnet.load(run), distnet.load_dataset(data_dir=data_dir)
    matrix = np.zeros((10, 10), int)
    for label, logits in zip(data.test.targets, network.predict(data.test.inputs), strict=True):
        matrix[label, logits.argmax()] += 1
    return matrix


def test_evaluation_on_the_data_of_the_run(run, data_dir, capsys):
    result = json.loads(said(capsys, "evaluate", run, "--json"))
    matrix = expected(run, data_dir)
    assert 0.5 < matrix.trace() / 37 < 1
    assert result["confusion_matrix"] == matrix.tolist()
    assert (result["samples"], result["accuracy"]) == (37, matrix.trace() / 37)
    assert (result["data"], result["part"]) == (data_dir.name, "test")
    assert [each["class"] for each in result["classes"]] == list("0123456789")
    assert [each["support"] for each in result["classes"]] == matrix.sum(axis=1).tolist()
    summary = json.loads((run / "summary.json").read_text())
    assert result["accuracy"] == summary["best_test_accuracy"]
    assert result["loss"] == pytest.approx(summary["best_test_loss"], rel=1e-6)


@pytest.fixture(scope="module")
def voters(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The network of `run`, and two that make other mistakes."""
    paths = [run]
    for seed in (1, 2):
        network = distnet.load(run)
        noise = np.random.Generator(np.random.Philox(key=seed))
        values = network.parameters.values
        values += 0.2 * noise.standard_normal(values.size).astype(values.dtype)
        path = tmp_path_factory.mktemp("voters") / f"voter{seed}.safetensors"
        distnet.save(network, path)
        paths.append(path)
    return paths


def test_several_networks_are_an_ensemble(run, data_dir, voters, capsys):
    """What is told of them is counted here, from the mean of their probabilities."""
    test = distnet.load_dataset(data_dir=data_dir).test
    each = [probabilities(distnet.load(path), test.inputs) for path in voters]
    mean = np.mean(each, axis=0)
    assert len({tuple(p.argmax(axis=1)) for p in (*each, mean)}) > 2, "they agree: nothing tested"
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (test.targets, mean.argmax(axis=1)), 1)
    result = json.loads(said(capsys, "evaluate", *voters, "--json"))
    assert result["confusion_matrix"] == matrix.tolist()
    loss = -np.log(mean[np.arange(37), test.targets]).mean()
    assert result["loss"] == pytest.approx(loss, rel=1e-4)
    assert result["model"] == f"ensemble of 3 networks ({', '.join(map(str, voters))})"
    found = predictions(capsys, *voters, data_dir / TEST_IMAGES)
    rows = np.array([list(each["probabilities"].values()) for each in found])
    np.testing.assert_allclose(rows, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.mpi_launch
def test_an_ensemble_says_the_same_on_ranks(data_dir, voters, mpirun, capsys):
    for argv in (
        ["evaluate", *voters, "--part", "train", "--json"],
        ["predict", *voters, data_dir / "train-images-idx3-ubyte", "--json"],
    ):
        process = mpirun(3, "-m", "distnet", *map(str, argv))
        assert (process.returncode, process.stdout) == (0, said(capsys, *argv))


def test_networks_that_do_not_go_together_are_refused_in_one_line(run, tmp_path, capsys):
    small, np_file = model_file(tmp_path), tmp_path / "x.npy"
    np.save(np_file, np.zeros((1, 28, 28), np.uint8))
    for argv in (("evaluate", run, run, small), ("predict", run, run, small, np_file)):
        line = refusal(capsys, *argv)
        assert f"{small}: found input_shape (1, 4, 4), expected that of the first network" in line
        assert line.endswith(f"(1, 28, 28), {run}\n")
    assert f"found no FILES behind {small}, expected images" in refusal(
        capsys, "predict", run, small
    )


@pytest.mark.mpi_launch
def test_evaluation_and_prediction_say_the_same_on_ranks(run, data_dir, mpirun, capsys):
    for argv in (
        ["evaluate", run, "--part", "train", "--json"],
        ["predict", run, data_dir / "train-images-idx3-ubyte", data_dir / TEST_IMAGES, "--json"],
    ):
        process = mpirun(3, "-m", "distnet", *map(str, argv))
        assert (process.returncode, process.stdout) == (0, said(capsys, *argv))


@pytest.mark.mpi_launch
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_ranks_that_find_different_files(voters, data_dir, tmp_path, command):
    """Each host has a copy of its own, of which one is old."""
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        shutil.copy(voters[1 + rank], tmp_path / str(rank) / "model.safetensors")
    shutil.copy(data_dir / TEST_IMAGES, tmp_path / "0" / "images")
    shutil.copy(data_dir / "train-images-idx3-ubyte", tmp_path / "1" / "images")

    def line() -> str:
        more = ("--data-dir", str(data_dir)) if command == "evaluate" else ("images",)
        words = ("-m", "distnet", command, "model.safetensors", *more)
        process = launching.mpirun_apart(tmp_path, *words)
        assert (process.returncode, process.stdout) == (2, ""), process.stderr
        (said,) = own_lines(process)
        return said

    assert line().startswith("distnet: error: the ranks differ in model.safetensors: ")
    if command == "predict":
        shutil.copy(tmp_path / "0" / "model.safetensors", tmp_path / "1")
        assert line().startswith("distnet: error: the ranks differ in images: ")


def test_the_table_for_people(run, data_dir, capsys):
    lines = said(capsys, "evaluate", run).splitlines()
    matrix = expected(run, data_dir)
    assert lines[0].startswith(f"{run} on {data_dir.name}, test, 37 samples: loss ")
    assert lines[2].split() == ["class", "precision", "recall", "f1", "support"]
    assert lines[-11].split() == list("0123456789")
    assert [line.split() for line in lines[-10:]] == [
        [str(t), *map(str, row)] for t, row in enumerate(matrix)
    ]


def test_a_large_matrix_is_told_by_its_largest_elements():
    matrix = np.diag(np.full(30, 5))
    matrix[3, 7], matrix[29, 0] = 4, 2
    names = tuple(f"c{k}" for k in range(30))
    lines = Evaluation("m", "d", "test", names, 0.5, 0.9, matrix).lines()
    assert [line.split() for line in lines[-11:-8]] == [
        ["class", "taken", "for", "samples"],
        ["c3", "c7", "4"],
        ["c29", "c0", "2"],
    ]


@pytest.mark.parametrize("path", ["best.safetensors", "step-00000020.safetensors"])
def test_a_checkpoint_knows_the_data_too(run, capsys, path):
    result = json.loads(said(capsys, "evaluate", run / "checkpoints" / path, "--json"))
    assert result["samples"] == 37


def test_other_data_are_warned_of(run, data_dir, tmp_path, capsys):
    other = shutil.copytree(data_dir, tmp_path / "other")
    said(capsys, "evaluate", run, "--data-dir", data_dir)
    labels = np.arange(37, dtype=np.uint8)[::-1] % 10
    (other / "t10k-labels-idx1-ubyte").write_bytes(format_idx(np.ascontiguousarray(labels)))
    assert main(["evaluate", str(run), "--data-dir", str(other)]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith(
        f"distnet: warning: the network was trained on {data_dir.name} of SHA"
    )
    assert warning.count("\n") == 1


def model_file(tmp_path: Path, **settings: Any) -> Path:
    network = distnet.Network([distnet.Linear(3)], (1, 4, 4))
    distnet.save(network, tmp_path / "own.safetensors", **{"classes": "012"} | settings)
    return tmp_path / "own.safetensors"


def test_labels_are_found_by_the_names_of_their_classes(tmp_path, capsys):
    images = np.zeros((10, 4, 4), np.uint8)
    np.savez(tmp_path / "pets.npz", images=images, labels=["dog"] * 7 + ["cat"] * 3)
    path = model_file(tmp_path, classes=("dog", "bird", "cat"))
    args = ("--data", tmp_path / "pets.npz", "--part", "train", "--json")
    classes = json.loads(said(capsys, "evaluate", path, *args))["classes"]
    support = {each["class"]: each["support"] for each in classes}
    assert support["bird"] == 0
    assert support["dog"] > support["cat"] > 0
    assert classes[1]["recall"] is None  # nothing to be found
    strangers = model_file(tmp_path, classes=("a", "b", "c"))
    assert "found class 'cat', expected those of the network: a, b, c" in refusal(
        capsys, "evaluate", strangers, *args
    )


def test_what_cannot_be_evaluated_is_one_line(run, tmp_path, capsys):
    path = model_file(tmp_path)
    assert "found no data set named in it, expected --data NAME" in refusal(
        capsys, "evaluate", path
    )
    line = refusal(capsys, "evaluate", tmp_path / "x")
    assert "found no file, expected the directory of a run, a checkpoint or a model file" in line
    assert "found no RUN_OR_FILE" in refusal(capsys, "evaluate")
    assert "expected one of test, train" in refusal(capsys, "evaluate", run, "--part", "tset")
    assert "did you mean shapes?" in refusal(capsys, "evaluate", run, "--data", "shape")
    images = np.zeros((10, 28, 27), np.uint8)
    np.savez(tmp_path / "narrow.npz", images=images, labels=np.arange(10))
    narrow = ("--data", tmp_path / "narrow.npz", "--part", "train")
    assert "expected (N, 1, 28, 28)" in refusal(capsys, "evaluate", run, *narrow)


def test_a_network_or_an_answer_that_is_no_number_is_refused(tmp_path, capsys):
    images = np.zeros((10, 1, 4, 4), np.float32)
    images[7] = 3e38
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(10) % 3)
    network = distnet.Network([distnet.Linear(3)], (1, 4, 4), seed=0)
    path = tmp_path / "own.safetensors"
    network.parameters.named()["linear1.weight"][:] = 1e3
    distnet.save(network, path, classes="012")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(path), str(tmp_path / "x.npz")])
    out, err = capsys.readouterr()
    assert out == "" and "x.npz: the outputs for image 7, counted from 0, are no finite" in err
    network.parameters.named()["linear1.weight"][0] = np.nan
    distnet.save(network, path, classes="012")
    for command in (["predict", path], ["evaluate", path, "--data"]):
        line = refusal(capsys, *command, tmp_path / "x.npz")
        assert "own.safetensors: found NaN in params.linear1.weight, expected numbers" in line


@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_a_loss_that_is_beyond_all_sums_is_told(run, data_dir, tmp_path, capsys, scale):
    network = distnet.load(run)
    network.parameters.values[...] *= scale
    distnet.save(network, tmp_path / "large.safetensors")
    argv = ["evaluate", str(tmp_path / "large.safetensors"), "--data-dir", str(data_dir)]
    assert main(argv) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("distnet: warning: outputs of the network overflow, or nearly:")


def test_figures_of_each_class():
    precision, recall, f1 = precision_recall_f1(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(precision, [3 / 5, 4 / 5, np.nan])
    np.testing.assert_allclose(recall, [3 / 4, 4 / 6, np.nan])
    np.testing.assert_allclose(
        f1, [2 * 0.6 * 0.75 / 1.35, 2 * 0.8 * (4 / 6) / (0.8 + 4 / 6), np.nan]
    )


def test_a_confusion_matrix_counts_in_training_too():
    network = distnet.Network([distnet.Linear(3)], (4,), seed=1)
    objective = Confusion(network)
    x = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    labels = np.arange(9) % 3
    sums = objective.gradients(network.as_input(x), labels, distnet.MicroBatch())
    matrix = objective.matrix(sums[1:])
    assert matrix.sum(axis=1).tolist() == [3, 3, 3]
    accuracy = objective.metrics(float(sums[0]), sums[1:], 9)["accuracy"]
    assert accuracy == np.mean(network.predict(x).argmax(axis=1) == labels)


def predictions(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> list[dict[str, Any]]:
    return json.loads(said(capsys, "predict", *argv, "--json"))


def probabilities(network: distnet.Network, images: np.ndarray) -> np.ndarray:
    return distnet.softmax(network.predict(images))


def test_arrays_and_idx_files_in_any_shape(run, data_dir, tmp_path, capsys):
    images = distnet.load_dataset(data_dir=data_dir).test.inputs
    expected = probabilities(distnet.load(run), images)
    np.save(tmp_path / "all.npy", images)
    np.save(tmp_path / "grey.npy", images[:, 0])
    np.save(tmp_path / "one.npy", images[5])
    np.save(tmp_path / "plane.npy", images[5, 0])
    np.savez(tmp_path / "named.npz", x=images, y=np.zeros(37, int))
    np.savez(tmp_path / "single.npz", whatever=images)
    whole = ("all.npy", "grey.npy", "named.npz", "single.npz")
    for path in (*(tmp_path / name for name in whole), data_dir / TEST_IMAGES):
        found = predictions(capsys, run, path)
        assert [each["image"] for each in found] == list(range(37))
        assert {each["file"] for each in found} == {str(path)}
        rows = np.array([list(each["probabilities"].values()) for each in found])
        np.testing.assert_allclose(rows, expected, rtol=1e-6)
        assert [each["class"] for each in found] == [str(k) for k in expected.argmax(axis=1)]
    for name in ("one.npy", "plane.npy"):
        (found,) = predictions(capsys, run, tmp_path / name)
        assert found["class"] == str(expected[5].argmax())


def test_pictures_of_digits_and_of_other_things(run, tmp_path, capsys):
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 10:18] = 255
    Image.fromarray(255 - np.pad(digit, 30)).save(tmp_path / "ink.png")  # dark, on white paper
    Image.fromarray(digit).save(tmp_path / "plain.png")
    network = distnet.load(run)
    as_digits = predictions(capsys, run, tmp_path / "ink.png", "--pictures", "digits")
    plain = predictions(capsys, run, tmp_path / "plain.png")
    (expected,) = probabilities(network, digit[None, None])
    for (found,) in (as_digits, plain):
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=1e-5)
    other = predictions(capsys, run, tmp_path / "ink.png", "--pictures", "plain")
    assert other[0]["probabilities"] != as_digits[0]["probabilities"]


@pytest.mark.parametrize("prepare", ["auto", "digits"])
def test_folders_of_pictures_are_evaluated_as_each_is_predicted(run, tmp_path, capsys, prepare):
    """Of any size and in colour, whatever the network reads."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(8):
        ink = np.full((70, 60 + number, 3), 230, np.uint8)  # dark strokes on white paper
        ink[10 + number : 60, rng.integers(12, 40) :][:, : 4 + 3 * number] = rng.integers(0, 60, 3)
        pictures.append(tmp_path / "mine" / str(number % 2 * 7) / f"{number}.png")
        pictures[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ink).save(pictures[-1])
    found = predictions(capsys, run, *pictures, "--pictures", prepare)
    matrix = np.zeros((10, 10), int)
    for path, each in zip(pictures, found, strict=True):
        matrix[int(path.parent.name), int(each["class"])] += 1
    evaluate = ["evaluate", run, "--data-dir", tmp_path / "mine", "--pictures", prepare, "--json"]
    assert json.loads(said(capsys, *evaluate))["confusion_matrix"] == matrix.tolist()


def test_data_without_a_test_part_are_all_the_test_of_who_was_not_trained_on_them(tmp_path, capsys):
    rng = np.random.default_rng(0)
    mine, other, few = (tmp_path / f"{name}.npz" for name in ("mine", "other", "few"))
    for path, number in ((mine, 60), (other, 60), (few, 3)):
        np.savez(path, x=rng.random((number, 6, 6)), y=np.arange(number) % 3)
    run = tmp_path / "run"
    train = [
        "train",
        "--model",
        "two_layer",
        "--data-dir",
        mine,
        "--steps",
        "1",
        "--batch-size",
        "10",
    ]
    assert main([*map(str, train), "--out", str(run)]) == 0
    capsys.readouterr()
    for path, samples, how in (
        (mine, 10, "10 of 60 samples are held out for the test, by seed 0"),
        (other, 60, "all of it, 60 samples, is the test"),
        (few, 3, "all of it, 3 samples, is the test"),
    ):
        assert main(["evaluate", str(run), "--data-dir", str(path), "--json"]) == 0
        told = capsys.readouterr()
        assert json.loads(told.out)["samples"] == samples
        unknown = tmp_path / "unknown.safetensors"  # which does not say what it was trained on
        distnet.save(distnet.load(run), unknown, classes=("0", "1", "2"))
        for models in ([unknown], [unknown, run], [run, unknown])[: 3 * (samples > 3)]:
            evaluate = ["evaluate", *map(str, models), "--data-dir", str(path), "--json"]
            assert json.loads(said(capsys, *evaluate))["samples"] == 10
        assert f"there are no test data: {how}\n" in told.err


def test_several_files_in_a_table(run, data_dir, tmp_path, capsys):
    images = distnet.load_dataset(data_dir=data_dir).test.inputs
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, images[:2])
    head, *lines = said(capsys, "predict", run, tmp_path / "a.npy", tmp_path / "b.npy").splitlines()
    assert head.split() == ["file", "image", "class", "probability", "then"]
    places = [(Path(file).name, image) for file, image, *_ in map(str.split, lines)]
    assert places == [("a.npy", "0"), ("a.npy", "1"), ("b.npy", "0"), ("b.npy", "1")]


@pytest.mark.mpi_launch
def test_more_ranks_than_images(run, data_dir, tmp_path, mpirun, capsys):
    np.save(tmp_path / "one.npy", distnet.load_dataset(data_dir=data_dir).test.inputs[0])
    argv = ["predict", str(run), str(tmp_path / "one.npy")]
    process = mpirun(3, "-m", "distnet", *argv)
    assert (process.returncode, process.stdout) == (0, said(capsys, *argv))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.png", b"no picture", "x.png: cannot be read"),
        ("x.npy", b"no array", "x.npy: damaged, or no file of NumPy"),
        ("x.npz", b"no archive", "x.npz: damaged, or no file of NumPy"),
        ("x.txt", b"hello", "expected .npy, .npz, IDX images, or a picture"),
        ("x", format_idx(np.zeros(3, np.uint8)), "expected .npy, .npz, IDX images, or a picture"),
        ("x", format_idx(np.zeros((1, 2, 3), np.uint8)), "expected (N, 1, 28, 28)"),
        ("x", b"\x00\x00\x08\x03", "x: found "),
        ("x.gz", b"\x1f\x8b", "x.gz: cannot be read"),
    ],
)
def test_what_is_no_image_is_one_line(run, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refusal(capsys, "predict", run, tmp_path / name)


def test_what_cannot_be_predicted_is_one_line(run, tmp_path, capsys):
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    assert "found a, b, expected one array, or one called images" in refusal(
        capsys, "predict", run, tmp_path / "two.npz"
    )
    assert "cannot be read (No such file" in refusal(capsys, "predict", run, tmp_path / "x.npy")
    assert "found no FILES" in refusal(capsys, "predict", run)
    autoencoder = distnet.Network([distnet.Conv2d(1, 3, pad=1)], (1, 4, 4))
    distnet.save(autoencoder, tmp_path / "a.safetensors")
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 4), np.uint8))
    line = refusal(capsys, "predict", tmp_path / "a.safetensors", tmp_path / "x.npy")
    assert "found a network whose outputs have no names, expected a classifier" in line
    of_rows = distnet.Network([distnet.Linear(2)], (7,))
    distnet.save(of_rows, tmp_path / "rows.safetensors", classes=("a", "b"))
    np.save(tmp_path / "number.npy", np.array(0.5))
    for model in (run, tmp_path / "rows.safetensors"):
        line = refusal(capsys, "predict", model, tmp_path / "number.npy")
        assert "number.npy: found shape (), expected (N, " in line


@pytest.mark.mpi_launch
def test_a_run_on_data_without_a_test_part_is_tested_on_samples_that_it_never_saw(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(60) % 3)
    own = ("--data-dir", tmp_path / "own.npz", "--model", "two_layer", "--steps", "2")
    succeed(ALONE, *own, "--batch-size", "25", "--out", tmp_path / "run")
    result = json.loads(said(capsys, "evaluate", tmp_path / "run", "--json"))
    assert (result["samples"], result["data"]) == (10, "own")
    training = json.loads(said(capsys, "evaluate", tmp_path / "run", "--json", "--part", "train"))
    assert training["samples"] == 50


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(("name", "times"), [("evaluate", 1), ("compare", 2)])
def test_results_that_cannot_be_written_are_no_success(run, name, times):
    command = [sys.executable, "-m", "distnet", name, *[str(run)] * times]
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, timeout=launching.HUNG_SECONDS
        )
    assert process.returncode == 74


def test_floats_that_look_like_bytes_are_told(run, data_dir, tmp_path, capfd):
    test = distnet.load_dataset(data_dir=data_dir).test
    images = test.inputs.astype(np.float32)
    images[0, 0, 0, 0] = 255
    np.save(tmp_path / "floats.npy", images)
    np.savez(tmp_path / "floats.npz", images=images, labels=test.targets)
    hint = "images are floats up to 255 and taken as they are, while bytes mean 0 to 1; divide"
    assert main(["predict", str(run), str(tmp_path / "floats.npy")]) == 0
    error = capfd.readouterr().err
    assert error.startswith(f"distnet: warning: {tmp_path / 'floats.npy'}: {hint}")
    assert error.count("\n") == 1
    assert main(["evaluate", str(run), "--data", str(tmp_path / "floats.npz")]) == 0
    assert f"distnet: floats: {hint}" in capfd.readouterr().err
