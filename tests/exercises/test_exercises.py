"""The exercises of docs/classroom: what a student begins with fails the check, the solution passes.

The checks start runs, so each test takes seconds.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distnet.classroom import main
from distnet.exercises.table import EXERCISES

CLASSROOM = Path(__file__).resolve().parents[2] / "docs" / "classroom"
NUMBERS = [pytest.param(number, id=exercise.file) for number, exercise in EXERCISES.items()]


def checked(capfd, number, file):
    """The exit code, and what the command says, by lines."""
    code = main(["check", str(number), str(file)])
    said = capfd.readouterr()
    assert said.err == ""
    return code, said.out.splitlines()


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Of a student."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_one_begins_with_is_not_solved(capfd, number):
    code, lines = checked(capfd, number, CLASSROOM / EXERCISES[number].file)
    assert code == 1
    assert any(line.startswith("not yet  ") for line in lines)
    assert lines[-1].startswith("not solved yet")


@pytest.mark.parametrize(
    "number",
    [
        # Those that send messages of their own, or end ranks, are tried with every MPI.
        pytest.param(
            number, id=each.file, marks=[pytest.mark.mpi_launch] if number in (1, 4) else []
        )
        for number, each in EXERCISES.items()
    ],
)
def test_the_solution_is_right(capfd, number):
    code, lines = checked(capfd, number, CLASSROOM / "solutions" / EXERCISES[number].file)
    assert (code, lines[-1]) == (0, "solved"), "\n".join(lines)
    assert not any(line.startswith("not yet") for line in lines)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_exercise_has_its_page(number):
    exercise = EXERCISES[number]
    (page,) = CLASSROOM.glob(f"{number}-*.md")
    text = page.read_text()
    assert text.startswith(f"# {number}. {exercise.title.capitalize()}\n")
    assert f"distnet classroom check {number}\n" in text
    assert f"]({exercise.file})" in text
    for other in ("README.md", "teachers.md"):
        assert f"({page.name})" in (CLASSROOM / other).read_text()


def test_the_list(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for number, exercise in EXERCISES.items():
        assert re.fullmatch(rf"{number}  {exercise.title} +{exercise.file}", lines[number])


@pytest.mark.parametrize(
    "argv, words",
    [
        (["check"], "found no N"),
        (["check", "99"], "found no exercise .99., expected one of 1, 2, 3, 4, 5, 6, 7, 8;"),
        (["check", "one"], "found no exercise 'one'"),
        (["chek", "1"], "found 'chek'"),
    ],
)
def test_wrong_use_is_one_line(capsys, argv, words):
    assert main(argv) == 2
    assert re.fullmatch(rf"distnet: error: {words}.*\n", capsys.readouterr().err)


def test_the_line_in_which_a_function_has_failed(capfd):
    Path("dealing.py").write_text("def shares(num, speeds):\n    return 1 / 0\n")
    code, lines = checked(capfd, 5, "dealing.py")
    assert code == 1
    assert lines[1].endswith("has failed: ZeroDivisionError: division by zero, in line 2")


def test_a_file_that_is_not_there(capfd):
    code, lines = checked(capfd, 1, EXERCISES[1].file)
    assert code == 1 and lines[1].startswith("not yet  there is no file allreduce.py")


@pytest.mark.parametrize(
    "text, words",
    [
        ("def allreduce(\n", "cannot be imported: .* in line 1"),
        ("x = 1\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero, in line 2"),
        ("x = 1\n", "has no function allreduce yet"),
    ],
)
def test_a_file_that_is_broken(tmp_path, capfd, text, words):
    (tmp_path / "allreduce.py").write_text(text)
    code, lines = checked(capfd, 1, tmp_path / "allreduce.py")
    assert code == 1 and re.search(words, lines[1])


def test_a_file_that_is_not_named_is_that_of_the_list(capsys):
    """And the help says that it can be left out."""
    assert main(["check", "1"]) == 1
    assert "there is no file allreduce.py" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert "check N [FILE]" in capsys.readouterr().out
