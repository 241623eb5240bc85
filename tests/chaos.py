"""Kills ranks of training jobs at random moments: `python -m tests.chaos --rounds N --seed S`.

Each round trains the same small net, does it some harm, and demands the result of an undisturbed
process on its own: the same parameters to the last bit, each step once in metrics.jsonl, no process
left. Only where MPI itself crashes, as Open MPI does when a rank is lost while it builds the group
of survivors, the job may end, and has to come to that result from its last checkpoint. The kinds of
rounds:

    kill     ranks of an elastic job, one to all but one at once, rank 0 as likely as any
    again    the same, and one more rank within 50 ms, while the survivors recover
    pair     two neighbours in the same way, of which one is needed with --sync shard: either the
             survivors had recovered before the second was lost, and go on, or the job ends, names
             both, and goes on from the last checkpoint with --resume
    stop     a rank of an elastic job is stopped by SIGSTOP and has to be found
    restart  a rank, or the launcher, of a supervised job: started again from a checkpoint

All but the last need Open MPI with ULFM. With another MPI the job is a supervised one: for "again"
and "pair" two ranks of it are killed, for others one rank or the launcher. The time of a recovery
is from the kill to the next step that the survivors complete, seen from outside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does
import launching

ROOT = launching.ROOT
NUM_RANKS, NUM_STEPS = 4, 200
TRAIN = ["--model", "two_layer", "--batch-size", "40", "--micro-batch-size", "10"]
TRAIN += ["--steps", str(NUM_STEPS), "--checkpoint-every", "10", "--log-every", "1"]
# How often ranks synchronise; three islands on four ranks: some have one of their own, two share.
SYNC = {
    "step": (1, []),
    "shard": (1, ["--shard-optimizer", "--ema", "0.9"]),
    "local": (4, ["--sync", "local", "--islands", "3", "--sync-every", "4"]),
}
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")


class Failed(Exception):  # noqa: N818  the condition is the name
    """A promise was not kept."""


@dataclass
class Round:
    """What a round did: its kind, whom it hit when, and the seconds of each recovery."""

    kind: str
    hit: str
    recoveries: list[float]
    problem: str = ""


def is_elastic() -> bool:
    """Whether the mpirun of this environment is Open MPI 5 or later."""
    words = launching.version_of_mpirun()
    return "Open MPI" in words and int(words.split("Open MPI) ")[1].split(".")[0]) >= 5


class Job:
    """A training job in the background, with its run directory."""

    def __init__(
        self,
        out: Path,
        supervised: bool,
        sync: str,
        more: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        self.out, self.supervised = out, supervised
        self.every, of_sync = SYNC[sync]
        self.metrics = out / "metrics.jsonl"
        train = [*TRAIN, *of_sync, *more, "--out", str(out)]
        mpirun = str(launching.find_mpirun())
        if supervised:
            supervise = [python, "-m", "distnet", "supervise", "--backoff", "0.1", "--"]
            job = [mpirun, "-n", str(NUM_RANKS), python, "-m", "distnet.train"]
            command = [*supervise, *job, *train]
        else:
            command = [str(ROOT / "launch" / "elastic.sh"), "-n", str(NUM_RANKS), "--", *train]
        self.log = (out.parent / f"{out.name}.log").open("w+")
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **launching.SETTINGS, "MPIRUN": mpirun, "PYTHON": python},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ranks(self) -> dict[int, int]:
        """Rank as started -> process id, of those that live."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if str(self.out).encode() not in (path.parent / "cmdline").read_bytes():
                    continue
                variables = dict(
                    entry.split("=", 1)
                    for entry in path.read_bytes().decode(errors="replace").split("\0")
                    if "=" in entry
                )
                for name in RANK_VARIABLES:
                    if name in variables:
                        found[int(variables[name])] = int(path.parent.name)
        return found

    def states(self) -> str:
        """The ranks that live, each with the letter that the kernel has for its state."""
        letters = []
        for rank, pid in sorted(self.ranks().items()):
            with contextlib.suppress(OSError):
                letter = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
                letters.append(f"{rank}:{letter}")
        return f"ranks {' '.join(letters) or 'none'}, launcher {self.process.poll()}"

    def launcher(self) -> int:
        """The process id of mpirun."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def num_steps(self) -> int:
        with contextlib.suppress(OSError):
            return self.every * self.metrics.read_bytes().count(b'"train"')
        return 0

    def wait_for_step(self, step: int) -> None:
        self.wait(lambda: self.num_steps() >= step, f"step {step}")

    def wait_for_recovery(self, num_ranks: int) -> None:
        """Until `num_ranks` survivors have completed a step.

        The line of a recovery is followed by that of the step before it, and then by new ones.
        """

        def recovered() -> bool:
            lines = self.metrics.read_bytes()
            start = lines.rfind(b'"recovery"')
            goes_on = b'"ranks": %d}' % num_ranks in lines[start:] if start >= 0 else False
            return goes_on and lines[start:].count(b'"train"') >= 2

        self.wait(recovered, f"a step of {num_ranks} survivors")

    def wait(self, condition, what: str) -> None:
        give_up = time.monotonic() + launching.HUNG_SECONDS
        while not condition():
            if self.process.poll() is not None:
                raise Failed(f"the job ended with {self.process.returncode} before {what}")
            if time.monotonic() > give_up:
                raise Failed(f"no {what} within {launching.HUNG_SECONDS:g} s")
            time.sleep(0.001)

    def finish(self) -> None:
        """Waits for the end and checks that the launcher is content and nobody is left."""
        if code := self.wait_for_end():
            raise Failed(f"exit code {code}")

    def wait_for_end(self) -> int:
        """The exit code of the launcher, after which nobody may be left."""
        try:
            code = self.process.wait(launching.HUNG_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"not finished within {launching.HUNG_SECONDS:g} s") from None
        if left := self.ranks():
            raise Failed(f"ranks {sorted(left)} are left")
        return code

    def said(self) -> str:
        """What it has written so far."""
        return Path(self.log.name).read_text()

    def mpi_has_crashed(self) -> bool:
        """Whether a rank ended in the one place of Open MPI 5.0.11 that is known for it."""
        return "ompi_comm_revoke_local" in self.said()

    def clean_up(self) -> None:
        for pid in self.ranks().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.log.close()


def events(out: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def check_result(out: Path, expected: str, every: int) -> None:
    """Raises Failed unless `out` is what an undisturbed run leaves."""
    found = json.loads((out / "summary.json").read_text())["params_sha256"]
    if found != expected:
        raise Failed(f"parameters {found[:12]}, expected {expected[:12]}")
    steps = [event["step"] for event in events(out) if event["event"] == "train"]
    if steps != list(range(every, NUM_STEPS + 1, every)):
        odd = [s for s, n in Counter(steps).items() if n > 1]
        raise Failed(f"steps in metrics.jsonl: {len(steps)}, more than once: {odd}")


def train_alone(out: Path, sync: str, more: Sequence[str] = ()) -> None:
    """Trains in one process on its own."""
    options = [*TRAIN, *SYNC[sync][1], *more, "--out", str(out)]
    command = [sys.executable, "-m", "distnet.train", *options]
    environment = {**os.environ, **launching.SETTINGS}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def undisturbed(out: Path, sync: str, more: Sequence[str] = ()) -> str:
    """The hash of the parameters that one process on its own arrives at."""
    train_alone(out, sync, more)
    return json.loads((out / "summary.json").read_text())["params_sha256"]


def strike(pids: Mapping[int, int], victims: Sequence[int], number: signal.Signals) -> float:
    """Sends the signal to these ranks, of process ids by rank; returns when."""
    when = time.monotonic()
    for rank in victims:
        os.kill(pids[rank], number)
    return when


def disturb_elastic(job: Job, kind: str, rng: random.Random, sync: str) -> tuple[str, list[float]]:
    """Does harm to the job once or twice; whom it hit, and the seconds of each recovery."""
    step = rng.randrange(1, NUM_STEPS * 3 // 4)
    num_victims = 1 if kind == "stop" else rng.randint(1, NUM_RANKS - 1 - (kind == "again"))
    order = rng.sample(range(NUM_RANKS), NUM_RANKS)
    if sync == "shard":  # of two neighbours one has to be left: of four ranks, two opposite ones go
        num_victims = min(num_victims, 2 - (kind == "again"))
        order[1] = (order[0] + NUM_RANKS // 2) % NUM_RANKS
    victims = order[:num_victims]
    job.wait_for_step(step)
    time.sleep(rng.uniform(0, 0.02))
    number = signal.SIGSTOP if kind == "stop" else signal.SIGKILL
    pids = job.ranks()
    when = strike(pids, victims, number)
    if kind == "again":
        time.sleep(rng.uniform(0, 0.05))
        victims = order[: num_victims + 1]
        when = strike(pids, victims[-1:], number)
    job.wait_for_recovery(NUM_RANKS - len(victims))
    hit = f"rank {' '.join(map(str, victims))} at step {step}"
    return hit, [time.monotonic() - when]


def disturb_pair(job: Job, rng: random.Random) -> str:
    """Kills two neighbours, and demands that the job goes on, or says why it does not; whom."""
    step, first = rng.randrange(10, NUM_STEPS * 3 // 4), rng.randrange(NUM_RANKS)
    second = (first + rng.choice((1, -1))) % NUM_RANKS
    job.wait_for_step(step)
    pids = job.ranks()
    strike(pids, [first], signal.SIGKILL)
    time.sleep(rng.uniform(0, 0.05))
    strike(pids, [second], signal.SIGKILL)
    code, said = job.wait_for_end(), job.said()
    recoveries = [event for event in events(job.out) if event["event"] == "recovery"]
    recovered = [rank for event in recoveries for rank in event["lost"]]
    if code:
        losses = [line for line in said.splitlines() if "a share of the optimizer and its" in line]
        names = [f"rank {rank} (process {pids[rank]} on " for rank in (first, second)]
        if code != 1 or len(losses) != 1 or not all(name in losses[0] for name in names):
            raise Failed(f"exit code {code}, which is not explained")
        if recovered:
            raise Failed(f"ended although it had recovered from the loss of {recovered}")
        train_alone(job.out, "shard", ["--resume"])
    elif sorted(recovered) != sorted([first, second]) and not (
        # Who writes may be lost before it has written of the first.
        second == (1 if first == 0 else 0) and recovered == [second]
    ):
        raise Failed(f"recovered from the loss of {recovered}, expected {first} and {second}")
    return f"rank {first} {second} at step {step}, {'resumed' if code else 'went on'}"


def disturb_supervised(job: Job, kind: str, rng: random.Random) -> tuple[str, list[float]]:
    """Kills ranks or the launcher, after the first checkpoint; the next step is the recovery."""
    step = rng.randrange(10, NUM_STEPS * 3 // 4)
    job.wait_for_step(step)
    time.sleep(rng.uniform(0, 0.02))
    pids = job.ranks()
    if kind in ("again", "pair"):
        victims = rng.sample(range(NUM_RANKS), 2)
        hit = f"rank {' '.join(map(str, victims))} at step {step}"
        when = strike(pids, victims[:1], signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.05))
        with contextlib.suppress(ProcessLookupError):  # it has ended with the others
            strike(pids, victims[1:], signal.SIGKILL)
    elif rng.random() < 0.5:
        rank = rng.randrange(NUM_RANKS)
        hit, when = f"rank {rank} at step {step}", strike(pids, [rank], signal.SIGKILL)
    else:
        hit, when = f"mpirun at step {step}", time.monotonic()
        os.kill(job.launcher(), signal.SIGKILL)
    # Resuming replaces the file, with fewer lines.
    before = job.metrics.stat().st_ino
    job.wait(lambda: job.metrics.stat().st_ino != before, "restart")
    resumed = job.num_steps()
    job.wait_for_step(resumed + 1)
    return hit, [time.monotonic() - when]


def run_round(out: Path, kind: str, rng: random.Random, expected: str, sync: str) -> Round:
    """One job, disturbed and checked."""
    job = Job(out, kind == "restart" or not is_elastic(), sync)
    result = Round(kind, "nobody", [])
    try:
        if job.supervised:
            result.hit, result.recoveries = disturb_supervised(job, kind, rng)
        elif kind == "pair":
            result.hit = disturb_pair(job, rng)
        else:
            result.hit, result.recoveries = disturb_elastic(job, kind, rng, sync)
        if kind != "pair":
            job.finish()
        check_result(out, expected, job.every)
    except (Failed, OSError, KeyError) as error:
        result.problem = f"{type(error).__name__}: {error}; {job.states()}"
        if job.mpi_has_crashed() and not job.ranks():
            result.hit, result.problem = "MPI crashed, resumed", ""
            train_alone(
                out, sync, ["--resume" if list(out.glob("checkpoints/*")) else "--overwrite"]
            )
            check_result(out, expected, job.every)
    finally:
        job.clean_up()
    return result


def run_rounds(directory: Path, kinds: Sequence[str], seed: int, sync: str = "step") -> list[Round]:
    """Runs and shows one round of each kind in turn; keeps the directory of those that fail."""
    expected = undisturbed(directory / "undisturbed", sync)
    rounds = []
    for index, kind in enumerate(kinds):
        out = directory / f"round-{index}"
        result = run_round(out, kind, random.Random(f"{seed} {index}"), expected, sync)
        times = " ".join(f"{seconds:.3f} s" for seconds in result.recoveries)
        print(f"{index:4} {kind:8}{result.hit:36}{times:10}{result.problem or 'ok'}", flush=True)
        if not result.problem:
            shutil.rmtree(out)
        rounds.append(result)
    return rounds


def choose_kinds(num_rounds: int, seed: int, elastic: bool, sync: str) -> list[str]:
    kinds, weights = ["kill", "again", "stop", "restart"], [10, 6, 2, 2]
    if sync == "shard":
        kinds, weights = [*kinds, "pair"], [*weights, 4]
    if not elastic:
        return ["restart"] * num_rounds
    return random.Random(seed).choices(kinds, weights, k=num_rounds)


def show_table(rounds: Sequence[Round]) -> None:
    print(f"\n{'kind':8}{'rounds':>8}{'survived':>10}{'median s':>10}{'max s':>8}")
    for kind in sorted({result.kind for result in rounds}):
        mine = [result for result in rounds if result.kind == kind]
        times = [seconds for result in mine for seconds in result.recoveries] or [float("nan")]
        survived = sum(not result.problem for result in mine)
        print(
            f"{kind:8}{len(mine):8}{survived:10}{statistics.median(times):10.3f}{max(times):8.3f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", choices=["kill", "again", "pair", "stop", "restart"], help="only this one"
    )
    parser.add_argument("--sync", choices=SYNC, default="step", help="of the training jobs")
    options = parser.parse_args()
    if options.kind == "pair" and options.sync != "shard":
        parser.error("--kind pair is one of --sync shard")
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    kinds = choose_kinds(options.rounds, options.seed, is_elastic(), options.sync)
    if options.kind:
        kinds = [options.kind] * options.rounds
    rounds = run_rounds(directory, kinds, options.seed, options.sync)
    show_table(rounds)
    failed = sum(bool(result.problem) for result in rounds)
    if failed:
        print(f"{failed} rounds failed; their directories and logs are in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
