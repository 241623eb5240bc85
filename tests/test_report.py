"""The page of `distnet report` shows what the runs have measured and what their networks do."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_runs import ALONE, NUM_TEST, SIZES, read_metrics, read_summary, succeed, write_digits

from distnet.base.images import as_array
from distnet.nn import Conv2d, Linear, Network
from distnet.report import main
from distnet.reporting import looks
from distnet.reporting.charts import MAX_POINTS, Curve, chart, thinned, ticks
from distnet.reporting.html import element, png, table
from distnet.reporting.run_files import RunFiles
from distnet.reporting.trace import excerpt, kind_of

FLAGS = ("--model", "simple_convnet", "--filters", "3", "--epochs", "2", "--log-every", "2")


class Page(HTMLParser):
    """tables: rows of cells; images: alternative text and pixels; text; attributes of elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.marked: list[str] = []
        self.images: list[tuple[str, np.ndarray]] = []
        self.text = ""
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        found = {key: value or "" for key, value in attrs}
        self.attributes += [(tag, key, value) for key, value in found.items()]
        if tag == "img":
            kind, data = found["src"].split(",", 1)
            assert kind == "data:image/png;base64"
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            self.images.append((found["alt"], pixels))
        if tag not in ("img", "meta"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
            self._is_marked = found.get("class") == "marked"
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "tr" and self._is_marked:
            self.marked.append(self.tables[-1][-1][0])

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if {"th", "td"} & set(self._open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    data = write_digits(tmp_path_factory.mktemp("digits"))
    out = tmp_path_factory.mktemp("runs")
    args = (*FLAGS, *SIZES, "--data-dir", data)
    timeline = ("--timeline", out / "trace.json")
    succeed(3, *args, "--out", out / "one", *timeline)
    succeed(ALONE, *args, "--out", out / "two", "--lr", "0.01", "--validation", "0.2")
    succeed(ALONE, *args, "--out", out / "half", "--stop-at", "3", code=75)
    return {path.name: path for path in out.iterdir() if path.is_dir()}


def page_of(tmp_path: Path, *argv: object) -> Page:
    out = tmp_path / "page.html"
    assert main([*map(str, argv), "--out", str(out), "--overwrite"]) == 0
    return Page(out.read_text())


@pytest.mark.mpi_launch
def test_one_run(runs, tmp_path, capsys):
    page = page_of(tmp_path, runs["one"], "--picture", "3")
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'page.html'}: 1 run\n"
    assert err == ""
    summary = read_summary(runs["one"])
    head, row = page.tables[0]
    found = dict(zip(head, row, strict=True))
    assert found["test accuracy"] == f"{summary['test_accuracy']:.2%}"
    assert found["params_sha256"] == summary["params_sha256"][:16]
    assert (found["run"], found["steps"], found["ranks"]) == ("one", "10", "3")
    matrix = np.array([list(map(int, cells[1:-1])) for cells in page.tables[1][1:]])
    assert matrix.shape == (10, 10)
    assert matrix.sum() == NUM_TEST
    best = max(line["test_accuracy"] for line in read_metrics(runs["one"]) if "epoch" in line)
    assert matrix.trace() == round(best * NUM_TEST)
    assert f"{matrix.trace()} of {NUM_TEST} samples" in page.text
    mistakes = [alt for alt, _ in page.images if ", taken for " in alt]
    assert len(mistakes) == min(NUM_TEST - matrix.trace(), 12)
    answers = [alt for alt, _ in page.images if alt.startswith("the answer of ")]
    layers = ["conv1", "pool1", "relu1", "linear1", "relu2", "linear2"]
    assert sorted(answers) == sorted(f"the answer of {name}" for name in layers)
    assert "the filters conv1.weight" in dict(page.images)
    assert "Sample 3, " in page.text
    assert all(f"rank {rank}" in page.text for rank in range(3))
    assert re.search(r"step \d, [\d.]+ ms", page.text), "the excerpt of the timeline"
    assert page.marked == []


@pytest.mark.mpi_launch
def test_several_runs_and_their_differences(runs, tmp_path):
    page = page_of(tmp_path, *(runs[name] for name in ("one", "two", "half")))
    assert [row[:3] for row in page.tables[0][1:]] == [
        ["one", "finished", "10"],
        ["two", "finished", "8"],
        ["half", "not finished", "3"],
    ]
    differing = {"lr", "validation", "out", "timeline", "stop_at"}
    assert set(page.marked) <= differing
    assert {"lr", "validation"} <= set(page.marked)
    assert "accuracy on the valid samples" in page.text
    curves = [value for tag, key, value in page.attributes if (tag, key) == ("polyline", "points")]
    steps = sum(line["event"] == "train" for name in runs for line in read_metrics(runs[name]))
    assert sum(len(points.split()) for points in curves) > 2 * steps


@pytest.mark.mpi_launch
def test_runs_in_directories_of_one_name_have_their_paths(runs, tmp_path):
    paths = [tmp_path / folder / "run" for folder in "ab"]
    for path, run in zip(paths, runs.values(), strict=False):
        shutil.copytree(run, path)
    page = page_of(tmp_path, *paths)
    assert [row[0] for row in page.tables[0][1:]] == [str(path) for path in paths]


def test_nothing_is_loaded_and_nothing_is_run(runs, tmp_path):
    page = page_of(tmp_path, runs["one"], runs["two"])
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "iframe", "object"}
    loaded = [v for _, key, v in page.attributes if key in ("src", "href", "srcset", "action")]
    assert all(value.startswith("data:image/png;base64,") for value in loaded)
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    source = (tmp_path / "page.html").read_text()
    assert "://" not in source
    assert "@import" not in source and "url(" not in source
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in (
        page.attributes
    )


@pytest.mark.mpi_launch
def test_ranks_write_the_same_page(mpirun, runs, tmp_path):
    page_of(tmp_path, runs["two"])
    other = tmp_path / "ranks.html"
    process = mpirun(3, "-m", "distnet", "report", str(runs["two"]), "--out", str(other))
    assert (process.returncode, process.stdout) == (0, f"{other}: 1 run\n")
    assert other.read_text() == (tmp_path / "page.html").read_text()


@pytest.mark.mpi_launch
def test_names_of_runs_and_classes_are_text(runs, tmp_path):
    odd = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(runs["two"], odd)
    page = page_of(tmp_path, odd)
    assert "distnet: <img src=x onerror=alert(1)>" in page.text
    assert not [key for _, key, _ in page.attributes if key == "onerror"]


@pytest.mark.mpi_launch
def test_what_cannot_be_shown_is_told_and_the_rest_is_there(runs, tmp_path, capsys):
    bare = tmp_path / "bare"
    shutil.copytree(runs["two"], bare)
    shutil.rmtree(bare / "checkpoints")
    (bare / "summary.json").write_text("[")
    with (bare / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epoch", "step": 9, "test_loss": null}\n{"ev')
    page = page_of(tmp_path, bare)
    assert "no pictures of it: found no checkpoint in it" in capsys.readouterr().err
    assert page.images == []
    assert "loss on the test samples" in page.text


@pytest.mark.mpi_launch
def test_what_a_network_makes_of_other_data_is_not_shown_as_its_own(runs, tmp_path, capsys):
    """As where the directory has got other files since."""
    moved = tmp_path / "moved"
    shutil.copytree(runs["two"], moved)
    config = (moved / "config.toml").read_text()
    (moved / "config.toml").write_text(re.sub("data_dir = .*", 'data_dir = ""', config))
    page = page_of(tmp_path, moved)
    told = capsys.readouterr().err
    assert "moved: no pictures of it: the network was trained on digits" in told
    assert page.images == []


@pytest.mark.mpi_launch
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["one", "one"], "found runs called one, one, expected names that differ"),
        (["checkpoints"], "found no config.toml, expected the directory of a run"),
        (["one", "--out", "one/config.toml"], "found a file there already; give --overwrite"),
        (["one", "--out", "none/page.html"], "found no directory, expected one for the page"),
        ([], "RUN"),
    ],
)
def test_wrong_use_is_one_line(runs, monkeypatch, capsys, argv, says):
    monkeypatch.chdir(runs["one"].parent)
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_page_that_cannot_be_written_is_one_line(runs, monkeypatch, capsys, tmp_path):
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distnet.report.write_atomically", full)
    with pytest.raises(SystemExit) as left:
        main([str(runs["one"]), "--out", str(tmp_path / "page.html")])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "page.html, which cannot be written (No space left on device)" in line


def test_pictures_are_what_they_were_made_of():
    rng = np.random.default_rng(1)
    for shape in ((3, 5), (4, 2, 2), (2, 7, 3), (6, 3, 4)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_text_is_escaped():
    assert element("p", "a < b", title='"&') == '<p title="&quot;&amp;">a &lt; b</p>'
    assert "<td>&lt;i&gt;</td>" in table(["a", "b"], [["x", "<i>"]])


def test_the_worst_mistake_is_the_surest_one():
    logits = np.array([[9, 0, 0], [0, 5, 0], [0, 8, 0], [0, 0, 3.0]])
    found = looks.worst_mistakes(logits, np.array([0, 0, 0, 1]), 2)
    assert [(each.sample, each.target, each.taken_for) for each in found] == [(2, 0, 1), (1, 0, 1)]
    expected = [[1, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert looks.confusion(logits, np.array([0, 0, 0, 1]), 3).tolist() == expected


def test_answers_are_those_of_the_network():
    network = Network([Conv2d(4, 3, pad=1), Linear(5)], (1, 6, 6))
    image = np.random.default_rng(1).random((1, 6, 6)).astype(np.float32)
    (name, shape, drawn), (_, last, logits) = looks.answers(network, image)
    assert (name, shape, last) == ("conv1", "4 x 6 x 6", "5")
    answer = network.predict(as_array(image[None], "x"))[0]
    expected = looks.stretched(answer)
    shown = logits[..., 0][logits[..., 1] > 0]
    assert shown.tolist() == expected.tolist()
    assert drawn.shape[2] == 2


def test_montage():
    tiles = np.arange(1, 8, dtype=np.uint8)[:, None, None] * np.ones((2, 3), np.uint8)
    canvas = looks.montage(tiles)
    number, seen = canvas[..., 0], canvas[..., 1]
    assert (seen > 0).sum() == tiles.size
    assert [int((number == k).sum()) for k in range(1, 8)] == [6] * 7
    assert not number[seen == 0].any()


def test_curves_that_cannot_be_drawn():
    assert chart("x", "step", []) == ""
    assert chart("x", "step", [Curve("a", [1, 2], [float("nan")] * 2)]) == ""
    assert "<polyline" in chart("x", "step", [Curve("a", [1], [0.0])])
    long = thinned(Curve("a", list(range(10_000)), [1.0] * 10_000))
    assert len(long.xs) <= MAX_POINTS
    assert sum(long.xs) / len(long.xs) == pytest.approx(4999.5, abs=20)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.971, 0.994), (0, 2400), (3.2, 3.2), (0, 1e-9), (-5, 5), (0, 0)]
)
def test_ticks_are_round_and_around(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low
    assert found[-1] >= high
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0])
    assert f"{steps[0]:e}"[0] in "125"


def test_how_long_each_rank_has_waited(tmp_path):
    """Steps of 4 s: one rank computes them all, the other half of them; a quarter is waiting."""
    lines = [{"event": "epoch", "step": 1, "compute_seconds": [4.0, 2.0], "wait_share": 0.25}] * 2
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "config.toml").write_text("")
    run = RunFiles.read(tmp_path)
    assert list(run.shares()) == [(0, 8.0, 0.0), (1, 4.0, 4.0)]


def test_a_trace_that_is_none(tmp_path):
    path = tmp_path / "trace.json"
    for content in ("", "[]", '{"traceEvents": [{"ph": "M"}, 3]}'):
        path.write_text(content)
        assert excerpt(path) == ""
    assert [kind_of(name) for name in ("forward conv1", "wait", "whatever")] == [0, 3, 5]


def test_a_chart_of_dots_says_where_they_are():
    dots = [Curve(f"trial {x}", [x], [y], dots=True, line=False) for x, y in ((0, 0.5), (1, 0.7))]
    page = Page(chart("by kind", "kind", dots, percent=True, x_marks={-1: "", 0: "a", 1: "b"}))
    places = [float(value) for tag, key, value in page.attributes if (tag, key) == ("circle", "cx")]
    marks = [float(v) for tag, key, v in page.attributes if (tag, key) == ("text", "x")]
    assert len(places) == 2 and set(places) < set(marks)
    assert not [tag for tag, _, _ in page.attributes if tag == "polyline"]
    assert not [value for _, key, value in page.attributes if (key, value) == ("class", "key")]
    for text in ("trial 0, at the end 50.00%", "a", "b", "kind"):
        assert text in page.text
