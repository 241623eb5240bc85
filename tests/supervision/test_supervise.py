"""The supervisor, with small programs in the place of a training job."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import launching
import pytest
from training_runs import read_metrics, read_summary

from distnet.supervision import hosts, supervisor

SUPERVISE = [sys.executable, "-m", "distnet", "supervise"]
ENVIRON = {**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"]}
SECONDS = launching.HUNG_SECONDS
# A job: notes its arguments, then does what the next line of `plan` says.
JOB = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[2])
with (out / "starts").open("a") as file:
    file.write(" ".join(sys.argv[3:]) + "\\n")
number = len((out / "starts").read_text().splitlines())
exec((out / "plan").read_text().splitlines()[number - 1])
"""
FINISH = '(out / "summary.json").write_text("{}")'
CHECKPOINT = '(out / "checkpoints").mkdir(); (out / "checkpoints" / "step-00000001.safetensors")'
CHECKPOINT += ".touch(); sys.exit(9)"


@pytest.fixture
def supervise(tmp_path):
    """`supervise(plan, *options)` runs jobs that act as the lines of `plan` say."""

    processes = contextlib.ExitStack()

    def run(plan, *options, wait=True, flags=()):
        (tmp_path / "plan").write_text("\n".join(plan))
        job = [sys.executable, "-c", JOB, "--out", str(tmp_path), *flags]
        process = subprocess.Popen(
            [*SUPERVISE, "--backoff", "0.01", *options, "--", *job],
            env=ENVIRON,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.enter_context(process)
        processes.callback(process.kill)
        if not wait:
            return process
        _, errors = process.communicate(timeout=SECONDS)
        return process.returncode, errors

    with processes:
        yield run


def starts(directory: Path) -> list[str]:
    """The arguments that each job was started with, besides --out."""
    path = directory / "starts"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_finished_run_is_not_restarted(supervise, tmp_path):
    assert supervise([FINISH])[0] == 0
    assert starts(tmp_path) == [""]


def test_a_job_that_dies_is_resumed_from_its_checkpoint(supervise, tmp_path):
    assert supervise(["sys.exit(3)", CHECKPOINT, FINISH])[0] == 0
    assert starts(tmp_path) == ["", "", "--resume"]


def test_an_unfinished_run_is_resumed_by_the_first_start(supervise, tmp_path):
    supervise([CHECKPOINT], "--max-restarts", "0")
    supervise(["", FINISH])
    assert starts(tmp_path) == ["", "--resume"]


def test_an_earlier_run_is_overwritten_once(supervise, tmp_path):
    supervise([CHECKPOINT], "--max-restarts", "0")
    supervise(["", "sys.exit(3)", FINISH], flags=["--overwrite"])
    assert starts(tmp_path) == ["", "--overwrite", "--resume"]


def test_exit_code_0_without_a_summary_is_a_failure(supervise, tmp_path):
    code, errors = supervise(["", "", ""], "--max-restarts", "2")
    assert code == 1
    assert starts(tmp_path) == ["", "", ""]
    assert "restart 2 of 2" in errors


def test_an_old_summary_does_not_count(supervise, tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    assert supervise(["sys.exit(4)"], "--max-restarts", "0")[0] == 4


def test_it_ends_with_the_code_of_the_last_run(supervise):
    assert supervise(["sys.exit(3)", "sys.exit(5)"], "--max-restarts", "1")[0] == 5
    assert (
        supervise(["", "", "import os; os.kill(os.getpid(), 9)"], "--max-restarts", "0")[0] == 137
    )


@pytest.mark.parametrize(("code", "options"), [(2, []), (75, [])])
def test_no_restart_after_wrong_usage_or_preemption(supervise, tmp_path, code, options):
    assert supervise([f"sys.exit({code})", FINISH], *options)[0] == code
    assert len(starts(tmp_path)) == 1


def test_a_preempted_job_is_restarted_if_wanted(supervise, tmp_path):
    assert supervise(["sys.exit(75)", FINISH], "--restart-preempted")[0] == 0
    assert len(starts(tmp_path)) == 2


def test_a_silent_job_is_killed_and_restarted(supervise, tmp_path):
    stubborn = "import signal, subprocess; signal.signal(15, signal.SIG_IGN)"
    if sys.platform == "linux":  # where all processes of a job are found
        stubborn += "; subprocess.Popen(['sleep', '987'], start_new_session=True)"
    stubborn += f"; time.sleep({10 * SECONDS})"
    code, errors = supervise([stubborn, FINISH], "--silence", "5")
    assert code == 0
    assert "nothing has happened" in errors
    for path in Path("/proc").glob("[0-9]*/cmdline"):  # not even its child in another session
        with contextlib.suppress(OSError):
            assert b"sleep\x00987" not in path.read_bytes()


def test_a_silent_job_that_stops_when_it_is_ended_is_restarted(supervise, tmp_path):
    """As one that was only slow does, after a checkpoint: nobody wanted it to stop."""
    slow = "import signal; signal.signal(15, lambda *_: sys.exit(75)); "
    slow += f"time.sleep({10 * SECONDS})"
    code, errors = supervise([slow, FINISH], "--silence", "2", "--requeue", "false")
    assert (code, len(starts(tmp_path))) == (0, 2)
    assert "the job ended with exit code 75 and is not finished" in errors


def test_a_job_that_is_always_silent_has_failed_and_is_not_queued_again(supervise, tmp_path):
    slow = "import signal; signal.signal(15, lambda *_: sys.exit(75)); "
    slow += f"time.sleep({10 * SECONDS})"
    flags = ["--silence", "2", "--max-restarts", "1", "--requeue", f"touch {tmp_path / 'queued'}"]
    assert supervise([slow, slow], *flags)[0] == 1
    assert not (tmp_path / "queued").exists()


def test_one_directory_has_one_supervisor(supervise, tmp_path):
    patient = "while not (out / 'go').exists(): time.sleep(0.01)"
    first = supervise([f"exec({patient!r}); {FINISH}"], wait=False)
    wait_for(lambda: starts(tmp_path))
    plan = (tmp_path / "plan").read_text()
    code, errors = supervise([plan])
    assert code == 2
    assert "is in use by another supervisor" in errors
    (tmp_path / "go").touch()
    assert first.wait(SECONDS) == 0
    assert starts(tmp_path) == [""]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the job goes on")
def test_a_killed_supervisor_takes_its_job_along_and_frees_the_lock(supervise, tmp_path):
    first = supervise([f"time.sleep({10 * SECONDS})"], wait=False)
    wait_for(lambda: starts(tmp_path))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert supervise(["", FINISH])[0] == 0
    assert starts(tmp_path) == ["", ""]


def test_a_signal_becomes_a_wish_to_stop(supervise, tmp_path):
    obliging = "import signal; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))"
    obliging += f"; (out / 'ready').touch(); time.sleep({10 * SECONDS})"
    requeue = ["--requeue", f"touch '{tmp_path / 'queued again'}'"]
    process = supervise([obliging], *requeue, wait=False)
    wait_for((tmp_path / "ready").exists)
    assert not (tmp_path / "queued again").exists()
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 75
    assert (tmp_path / "queued again").exists()


def test_a_command_of_requeue_that_fails_is_named(supervise, tmp_path):
    code, errors = supervise(["sys.exit(75)"], "--requeue", "false")
    assert code == 75
    assert "warning: --requeue: Command '['false']' returned non-zero exit status 1" in errors


def test_nothing_is_queued_again_unless_it_has_stopped_early(supervise, tmp_path):
    for plan, code in (([FINISH], 0), (["sys.exit(2)"], 2)):
        (tmp_path / "starts").unlink(missing_ok=True)
        assert supervise(plan, "--requeue", f"touch {tmp_path / 'again'}")[0] == code
    assert not (tmp_path / "again").exists()


def test_a_wish_to_stop_during_the_pause_before_a_restart(supervise, tmp_path):
    pause = str(10 * SECONDS)
    options = ["--backoff", pause, "--requeue", f"touch '{tmp_path / 'queued again'}'"]
    process = supervise(["sys.exit(9)", FINISH], *options, wait=False)
    while "restart 1 of 3" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 75
    assert len(starts(tmp_path)) == 1
    assert (tmp_path / "queued again").exists()


def test_a_wish_to_stop_before_the_job_can_hear_it(supervise, tmp_path):
    """It dies of the signal, as ranks do while they start, and is queued again all the same."""
    deaf = f"(out / 'ready').touch(); time.sleep({10 * SECONDS})"
    requeue = ["--requeue", f"touch '{tmp_path / 'queued again'}'"]
    process = supervise([deaf], *requeue, wait=False)
    wait_for((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 75
    assert len(starts(tmp_path)) == 1
    assert (tmp_path / "queued again").exists()


def test_a_wish_to_stop_that_comes_when_all_is_done(supervise, tmp_path):
    """Processes that end hear nothing any more either; the run is finished all the same."""
    done = f"{FINISH}; (out / 'ready').touch(); time.sleep({10 * SECONDS})"
    requeue = ["--requeue", f"touch '{tmp_path / 'queued again'}'"]
    process = supervise([done], *requeue, wait=False)
    wait_for((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 128 + signal.SIGUSR1
    assert not (tmp_path / "queued again").exists()


def test_hosts_that_do_not_answer_are_left_out(tmp_path):
    (tmp_path / "plan").write_text(FINISH)
    job = [sys.executable, "-c", JOB, "--out", str(tmp_path)]
    job += ["{num_hosts}:{hosts}", "{ranks}/{ranks_per_host}"]
    probe = [sys.executable, "-c", "import sys; sys.exit('{host}' == 'b')"]
    options = ["--hosts", "a,b,c", "--ranks-per-host", "2"]
    command = [*SUPERVISE, *options, "--probe", f'{probe[0]} -c "{probe[2]}"', "--", *job]
    assert subprocess.run(command, env=ENVIRON, timeout=SECONDS).returncode == 0
    assert starts(tmp_path) == ["2:a,c 4/2"]


def test_a_job_waits_for_a_host_that_answers(tmp_path):
    (tmp_path / "plan").write_text(FINISH)
    job = [sys.executable, "-c", JOB, "--out", str(tmp_path), "{hosts}"]
    # The first probe fails, and leaves what lets the second one succeed.
    probe = f"sh -c 'test -e {tmp_path}/{{host}} || {{ touch {tmp_path}/{{host}}; false; }}'"
    options = ["--hosts", "a", "--backoff", "0.01", "--probe", probe]
    command = [*SUPERVISE, *options, "--", *job]
    done = subprocess.run(command, env=ENVIRON, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    assert done.returncode == 0
    assert "0 of 1 host answer" in done.stderr
    assert starts(tmp_path) == ["a"]


# A job that saves its state when it is asked to, and ends: once it has written its first line.
STOP_WHEN_ASKED = (
    "import signal; (out / 'starting').touch(); time.sleep(0.5); "
    "signal.signal(signal.SIGUSR1, lambda *_: exec(CHECKPOINT)); "
    f"(out / 'metrics.jsonl').touch(); time.sleep({10 * SECONDS})"
).replace("CHECKPOINT", repr(CHECKPOINT.replace("sys.exit(9)", "sys.exit(75)")))


@pytest.mark.parametrize("when", ["starting", "metrics.jsonl"])
def test_a_job_goes_on_with_hosts_that_come(tmp_path, when):
    """While it starts, and would die of the wish to stop, or later."""
    (tmp_path / "hosts").write_text("# ours\na slots=2\n")
    (tmp_path / "plan").write_text(f"{STOP_WHEN_ASKED}\n{FINISH}")
    job = [sys.executable, "-c", JOB, "--out", str(tmp_path), "{hosts}", "{ranks}"]
    options = ["--hosts-from", f"cat {tmp_path}/hosts", "--probe", "true {host}"]
    options += ["--look-every", "0.05", "--max-restarts", "0", "--ranks-per-host", "2"]
    command = [*SUPERVISE, *options, "--", *job]
    with subprocess.Popen(command, env=ENVIRON, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / when).exists)
        assert process.poll() is None
        with (tmp_path / "hosts").open("a") as file:
            file.write("b:2\n")
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert starts(tmp_path) == ["a 2", "a,b 4 --resume"]
    assert "b can be used now; the job stops after a step, and goes on with all" in errors


def test_a_job_goes_on_with_hosts_that_come_back(tmp_path):
    (tmp_path / "b is there").touch()
    (tmp_path / "plan").write_text(f"{STOP_WHEN_ASKED}\n{FINISH}")
    job = [sys.executable, "-c", JOB, "--out", str(tmp_path), "{hosts}"]
    options = ["--hosts", "a,b", "--probe", f"test -e '{tmp_path}/{{host}} is there'"]
    command = [*SUPERVISE, *options, "--look-every", "0.05", "--", *job]
    with subprocess.Popen(command, env=ENVIRON, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / "starting").exists)
        (tmp_path / "a is there").touch()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert starts(tmp_path) == ["b", "a,b --resume"]


def test_nobody_looks_for_hosts_unless_asked_to(tmp_path):
    policy = supervisor.Policy(0, 1, 0, restart_preempted=False, requeue="", look_every=0)
    some = hosts.Hosts(["a"], "", 1, "true", 1)
    with supervisor.Supervisor([], tmp_path, policy, {}, some)._lookout([]) as lookout:
        assert lookout is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("a\nb\n", ["a", "b"]),
        ("a:4\n\n  b slots=2 # new\n#c\na\n", ["a", "b"]),
    ],
)
def test_what_a_discovery_command_prints(text, names):
    assert hosts.names_in(text) == names


@pytest.mark.parametrize("command", ["false", "/nowhere/at-all", "sleep 1000"])
def test_a_discovery_command_that_fails_names_no_host(command):
    assert hosts.Hosts([], command, 1, "true", 0.1).named() == []


def test_hosts_are_asked_in_any_number():
    many = [f"h{number}" for number in range(2 * hosts.MAX_PROBES + 1)]
    probe = "sh -c 'case {host} in *9) false;; esac'"
    answering = hosts.Hosts(many, "", 1, probe, SECONDS).that_answer(many)
    assert answering == [name for name in many if name[-1] != "9"]


def test_a_probe_that_hangs_is_killed():
    assert hosts.Hosts(["a", "b"], "", 1, "sleep 1000", 0.1).that_answer(["a", "b"]) == []


@pytest.mark.mpi_launch
def test_training_that_grows_has_the_bits_of_one_that_does_not(tmp_path):
    """One rank, and two when another host is named, which is this machine as well."""
    out, hostfile = tmp_path / "grows", tmp_path / "hosts"
    hostfile.write_text("a\n")
    train = [sys.executable, "-m", "distnet.train", "--model", "two_layer", "--log-every", "1"]
    train += ["--schedule", "constant"]
    launch = [str(launching.find_mpirun()), "-n", "{ranks}", *train, "--steps", "1000000"]
    options = ["--hosts-from", f"cat {hostfile}", "--probe", "true", "--look-every", "0.1"]
    command = [*SUPERVISE, *options, "--", *launch, "--out", str(out)]
    environ = {**os.environ, **launching.SETTINGS}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        metrics = out / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and metrics.stat().st_size)
        hostfile.write_text("a\nb\n")
        for line in process.stdout:
            if line.startswith("ranks 2 on 1 host"):
                break
        resumed = metrics.stat().st_size
        wait_for(lambda: metrics.stat().st_size > resumed)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 75
    steps = [line["step"] for line in read_metrics(out) if line["event"] == "train"]
    assert steps == list(range(1, steps[-1] + 1)), "none is left out, none made twice"
    for name in (out, tmp_path / "alone"):
        more = ["--resume"] if name == out else []
        length = ["--steps", str(steps[-1] + 5), "--out", str(name)]
        launching.run([*train, *length, *more], env=environ, check=True)
    assert read_summary(out)["params_sha256"] == read_summary(tmp_path / "alone")["params_sha256"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-- true", "found no --out in the command"),
        (
            "--max-restarts -1 -- x --out=y",
            "--max-restarts: found -1, expected a whole number >= 0",
        ),
        (
            "--max-restarts x -- x --out=y",
            "--max-restarts: found 'x', expected a whole number >= 0",
        ),
        (
            "--hosts a --hosts-from b -- x --out=y",
            "--hosts-from: found --hosts beside it, expected",
        ),
        ("true --out x", "found 'true' before --, expected distnet supervise [--config FILE.toml]"),
        ("", "found no COMMAND, expected distnet supervise [--config FILE.toml] [options] -- COMM"),
        ("--max-restart 1 -- true", "unknown option '--max-restart'; did you mean --max-restarts?"),
        ("-- /nowhere/at-all --out .", "/nowhere/at-all cannot be started (No such file"),
        ("-- true --out file/x", "--out: found file/x, where nothing can be written (Not a dir"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, arguments, message):
    (tmp_path / "file").touch()
    command = [*SUPERVISE, *arguments.split()]
    done = launching.run(command, cwd=tmp_path, env=ENVIRON)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"distnet: error: {message}")


@pytest.mark.parametrize("last", ["--out {}", "--out={}"])
def test_of_several_directories_training_takes_the_last(supervise, tmp_path, last):
    """As when a job file names one, and what follows the file's name another."""
    flags = last.format(tmp_path / "mine").split()
    (tmp_path / "mine").mkdir()
    finish = '(out / "mine" / "summary.json").write_text("{}")'
    assert supervise([finish], flags=flags)[0] == 0
    assert len(starts(tmp_path)) == 1


class Breathing:
    """A job of 100 looks; before each of the first `num` it leaves a sign of life."""

    def __init__(self, sign: Callable[[int], None], num: int) -> None:
        self.sign, self.num, self.looks = sign, num, 0

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks <= self.num:
            self.sign(self.looks)
        return 0 if self.looks > 100 else None


@pytest.mark.parametrize("name", ["heartbeats/rank-0.json", "metrics.jsonl"])
@pytest.mark.parametrize(("num_signs", "num_looks"), [(100, 101), (50, 60), (0, 10)])
def test_a_job_is_silent_when_its_files_are(tmp_path, monkeypatch, name, num_signs, num_looks):
    """By a clock of its own: a look every second, 9.5 seconds of silence allowed."""
    seconds = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(supervisor.time, "sleep", lambda _: seconds.append(seconds.pop() + 1))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)

    def sign(number: int) -> None:
        path.write_text(json.dumps({"position": [0, number, 0]}) + "\n" * number)

    job = Breathing(sign, num_signs)
    policy = supervisor.Policy(0, 9.5, 0, restart_preempted=False, requeue="")
    supervisor.Supervisor([], tmp_path, policy, {})._wait(job)
    assert job.looks == num_looks
