"""What a program says may be lost, and the program goes on."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import launching
import pytest

SAY = """
    import sys
    from distnet.base.output import secure_streams, write_now
    secure_streams()
    failures = [write_now(sys.stdout, f"line {n} é\\n") for n in range(3)]
"""
needs_dev_full = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")


def python(code: str, redirection: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a shell that redirects its streams."""
    command = f'"$0" -c "$1" {redirection}'
    return launching.run(
        ["sh", "-c", command, sys.executable, textwrap.dedent(code)],
        env={"PYTHONPATH": ":".join(sys.path), "LC_ALL": "C.UTF-8", **env},
    )


@needs_dev_full
def test_a_stream_that_fails_says_so_once_and_costs_no_exit_code():
    code = SAY + "    print([bool(failure) for failure in failures], file=sys.stderr)"
    ended = python(code, "> /dev/full")
    assert (ended.returncode, ended.stderr) == (0, "[True, False, False]\n")


def test_a_reader_that_has_left():
    code = "import time\ntime.sleep(0.2)" + textwrap.dedent(SAY) + "sys.exit(3)"
    ended = python(code, "| true")
    assert ended.stderr == ""


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_not_the_first_file_that_is_opened(redirection, tmp_path):
    path = tmp_path / "file"
    code = (
        SAY
        + f"""
    file = open({str(path)!r}, "w")
    file.write(f"{{file.fileno() > 2}} {{failures}}")
    sys.stderr.write("x")
    """
    )
    assert python(code, redirection).returncode == 0
    assert path.read_text() == "True [None, None, None]"


def test_a_character_that_an_encoding_lacks():
    ended = python(SAY, PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[0] == r"line 0 \xe9"
