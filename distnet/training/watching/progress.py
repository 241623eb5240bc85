"""How far a run is, in one line on the terminal that fits its width.

epoch 2/4 ━━━━━━━━━━──────── 700/2400  loss 0.0912  accuracy 97.25%  1618 images/s  1:08 left
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from distnet.base.screen import Screen
from distnet.training import columns
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult
from distnet.training.watching.terminal import Terminal

REFRESH_SECONDS = 0.25
NUM_RECENT = 40  # refreshes over which images a second are taken: ten seconds
MIN_BAR, MAX_BAR = 6, 30


class Progress(Callback):
    """Draws the status line of `terminal` anew, four times a second at most.

    Loss and metrics are averages over the steps since the last evaluation, as the table has them in
    its next line; images a second are those of steps alone, in the last seconds. Where the line
    stays, as in a notebook, the last one says how long the run took.
    """

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.perf_counter) -> None:
        self.terminal, self.clock = terminal, clock
        self._drawn = -math.inf
        self._images, self._seconds = 0, 0.0
        self._recent: deque[tuple[int, float]] = deque([(0, 0.0)], maxlen=NUM_RECENT)

    def begin(self, run: Run) -> None:
        self._began, self._first = self.clock(), run.num_done

    def stepped(self, run: Run, result: StepResult) -> None:
        screen, now = self.terminal.screen, self.clock()
        if screen is None:
            return
        self._images += result.num_samples
        self._seconds += result.own.seconds
        if result.stop:  # what follows may take its time: a checkpoint, a shell that waits
            self.terminal.show("")
        elif now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._recent.append((self._images, self._seconds))
            self._draw(run, screen, self._pieces(run, now))

    def end(self, run: Run) -> None:
        screen = self.terminal.screen
        if screen is not None and screen.keeps and self._drawn > -math.inf:
            *pieces, _ = self._pieces(run, self.clock())
            took = columns.clock(self.clock() - self._began)
            self._draw(run, screen, [*pieces, (4, f"in {took}")])

    def _draw(self, run: Run, screen: Screen, pieces: Sequence[tuple[int, str]]) -> None:
        bar = "━─" if screen.shows("━─") else "#-"
        self.terminal.show(status_line(pieces, self._part(run), screen.width, bar))

    def _part(self, run: Run) -> float:
        return run.num_done / run.total_steps

    def _pieces(self, run: Run, now: float) -> list[tuple[int, str]]:
        """What there is to say, and how much each piece counts."""
        done, total = run.num_done, run.total_steps
        epoch, epochs = (math.ceil(n / run.steps_per_epoch) for n in (done, total))
        averages = run.record.averages(run.trainer.objective)
        left = (now - self._began) / max(done - self._first, 1) * (total - done)
        (images, seconds), (images_now, seconds_now) = self._recent[0], self._recent[-1]
        rate = (images_now - images) / max(seconds_now - seconds, 1e-9)
        metrics = [(3, f"{name} {columns.text(name, x)}") for name, x in averages.items()]
        metrics[0] = (5, metrics[0][1])
        return [
            (2, f"epoch {epoch}/{epochs}"),
            (6, f"{done}/{total}"),
            *metrics,
            (1, f"{rate:.0f} images/s"),
            (4, f"{columns.clock(left)} left"),
        ]


def status_line(pieces: Sequence[tuple[int, str]], part: float, width: int, bar: str) -> str:
    """As many of the pieces as fit, the least important left out first, and a bar after the first.

    Shorter than `width`. part: how much of the bar is full, 0 to 1; bar: its two characters.
    """
    kept = list(pieces)
    while len(kept) > 1 and len("  ".join(text for _, text in kept)) >= width:
        kept.remove(min(kept))
    texts = [text for _, text in kept]
    room = min(width - 1 - len("  ".join(texts)) - 2, MAX_BAR)
    if room >= MIN_BAR:
        full = int(part * room)
        texts.insert(len(kept) > 1 and kept[0] == pieces[0], bar[0] * full + bar[1] * (room - full))
    return "  ".join(texts)[: width - 1]
