"""The two halves of running a test on several ranks: pytest plugins, for `conftest` alone.

`StartRanks` works in the pytest that a person or CI started. For a multi-rank test it runs a second
pytest under mpirun, reads what each of its ranks has reported, and reports that. `InRank` works in
those ranks, whoever started them. They talk through one file of JSON lines a rank.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import launching
import pytest

from distnet.parallel import Communicator

TIMED_OUT = 86  # exit code of the watchdog
REPORTS = "DISTNET_TEST_REPORTS"  # environment variable: the directory of the ranks' files


def marked_ranks(item: pytest.Item) -> int | None:
    """How many ranks a test asks for, None if it runs in this process."""
    mark = item.get_closest_marker("mpi")
    return None if mark is None else mark.kwargs.get("min_size", 1)


def marked_timeout(item: pytest.Item) -> float:
    mark = item.get_closest_marker("mpi")
    limit = launching.HUNG_SECONDS
    return limit if mark is None else mark.kwargs.get("timeout", limit)


class InRank:
    """In a rank: only rank 0 writes to the terminal; a failing rank shows why and ends the job."""

    def __init__(self, config: pytest.Config, comm: Communicator) -> None:
        """`comm` is for this plugin alone, so that its messages never meet those of a test."""
        self.config, self.comm = config, comm
        self.exit_status = 0
        self.stderr = os.dup(2)  # pytest captures 2 while tests run
        path = Path(os.environ[REPORTS], f"{comm.rank}.jsonl") if REPORTS in os.environ else None
        self.records = open(path or os.devnull, "w", buffering=1)  # noqa: SIM115  open to the end
        # Each rank has a pytest of its own: in one directory they remove each other's old files.
        self.temporary = tempfile.TemporaryDirectory(dir=os.environ.get(REPORTS))
        os.environ["PYTEST_DEBUG_TEMPROOT"] = self.temporary.name
        self.watchdog = self.watch("the start", launching.HUNG_SECONDS)
        if comm.rank > 0:
            config.pluginmanager.unregister(name="terminalreporter")

    def watch(self, what: str, limit: float) -> threading.Timer:
        """Starts a timer that ends the job, even while the main thread waits inside MPI."""

        def end() -> None:
            self.show(f"{what} takes longer than {limit:g} s; the stacks of this rank's threads:")
            faulthandler.dump_traceback(self.stderr, all_threads=True)
            time.sleep(1)  # for the other ranks to show theirs
            self.comm.abort(TIMED_OUT)

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        return timer

    def show(self, text: str) -> None:
        mark = f"[rank {self.comm.rank} of {self.comm.size}]"
        os.write(self.stderr, "".join(f"{mark} {line}\n" for line in text.splitlines()).encode())

    def record(self, value: dict[str, Any] | None) -> None:
        self.records.write(json.dumps(value) + "\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        self.watchdog.cancel()
        self.watchdog = self.watch(item.nodeid, marked_timeout(item))
        try:
            return (yield)
        finally:
            self.comm.barrier()  # ranks stay at the same test, so a failure has one culprit
            self.watchdog.cancel()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.get_closest_marker("mpi_launch"):
            pytest.skip("starts mpirun, which does not work inside mpirun")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        to_json = self.config.hook.pytest_report_to_serializable
        self.record(to_json(config=self.config, report=report))
        if report.failed:
            self.show(f"FAILED {report.nodeid} ({report.when})\n{report.longreprtext}")
            self.comm.abort(1)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.record({"finished": nodeid})

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.watchdog.cancel()
        self.exit_status = int(exitstatus)

    def pytest_unconfigure(self) -> None:
        """Errors outside of tests, in collection for example, may concern this rank alone."""
        self.records.close()
        self.temporary.cleanup()
        if self.exit_status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            self.comm.abort(self.exit_status)


class RankLog:
    """What one rank has written: reports, three for each test, and which tests it has finished."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.rank = int(path.stem)
        self.finished: list[str] = []
        self.reports: dict[str, list[pytest.TestReport]] = {}
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if "finished" in record:
                self.finished.append(record["finished"])
            else:
                from_json = config.hook.pytest_report_from_serializable
                report = from_json(config=config, data=record)
                if report.skipped and isinstance(report.longrepr, list):
                    report.longrepr = tuple(report.longrepr)  # JSON has no tuples
                self.reports.setdefault(report.nodeid, []).append(report)


class StartRanks:
    """In a process on its own: runs multi-rank tests under mpirun and passes on their reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reports: dict[str, list[pytest.TestReport]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if marked_ranks(item) is None:
            return None
        if item.nodeid not in self.reports:
            self.run(self.companions(item))
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.reports[item.nodeid]:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # Nothing was set up for this test, but fixtures that the one before left for its sake.
        item.session._setupstate.teardown_exact(nextitem)
        return True

    def companions(self, item: pytest.Item) -> list[pytest.Item]:
        """The tests of the same folder, for the same number of ranks, that have not run yet."""
        return [
            other
            for other in item.session.items
            if other.path.parent == item.path.parent
            and marked_ranks(other) == marked_ranks(item)
            and other.nodeid not in self.reports
        ]

    def run(self, items: list[pytest.Item]) -> None:
        """Runs `items` under one mpirun and keeps the reports of those that came to an end.

        If one of them breaks the job, those after it have none yet and run when it is their turn.
        """
        num_ranks = marked_ranks(items[0])
        with tempfile.TemporaryDirectory() as directory:
            error = self.launch(num_ranks, items, directory)
            logs = [RankLog(self.config, path) for path in sorted(Path(directory).glob("*.jsonl"))]
        failures = [f for f in (first_failure(logs, item) for item in items) if f is not None]
        self.reports |= {report.nodeid: [report] for report in failures}
        for item in items:
            if len(logs) == num_ranks and all(item.nodeid in log.finished for log in logs):
                self.reports.setdefault(item.nodeid, logs[0].reports[item.nodeid])
        if error and not failures:
            left = [item for item in items if item.nodeid not in self.reports]
            culprit = left[0] if left else items[-1]
            self.reports[culprit.nodeid] = [crash_report(culprit, error)]

    def launch(self, num_ranks: int, items: list[pytest.Item], directory: str) -> str | None:
        """Runs `items` on ranks that write into `directory`; returns what went wrong, if so."""
        options = ["--with-mpi", "--color=no", "-p", "no:cacheprovider", "-o", "addopts="]
        try:
            job = launching.mpirun(
                num_ranks,
                *("-m", "pytest", *options),
                *(item.nodeid for item in items),
                env={REPORTS: directory},
                timeout=launching.HUNG_SECONDS + sum(map(marked_timeout, items)),
                cwd=self.config.rootpath,
            )
        except RuntimeError as error:
            return str(error)
        except subprocess.TimeoutExpired as error:
            return f"mpirun took longer than {error.timeout:g} s\n{error.stdout}\n{error.stderr}"
        if job.returncode == 0:
            return None
        return f"mpirun ended with exit code {job.returncode}\n{job.stdout}\n{job.stderr}"


def first_failure(logs: list[RankLog], item: pytest.Item) -> pytest.TestReport | None:
    """The report of the lowest rank on which a test failed, with a note which rank that was."""
    for log in sorted(logs, key=lambda log: log.rank):
        for report in log.reports.get(item.nodeid, []):
            if report.failed:
                title = f"failed on rank {log.rank} of {marked_ranks(item)}"
                report.sections.insert(0, (title, ""))
                return report
    return None


def crash_report(item: pytest.Item, error: str) -> pytest.TestReport:
    """A failure without a report from any rank: killed, timed out, or not even started."""
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=error,
        when="call",
    )
