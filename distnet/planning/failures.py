"""What failures cost: the expected time of a run on hosts that fail now and then.

Each host fails as if by chance, once in `mtbf_seconds` on average (exponential times), so that N
hosts fail N times as often. A run that is started again loses what it has computed since its last
checkpoint. With checkpoints every t seconds that take d each, and R seconds to start again, the
time that t seconds of progress take is, for failures at rate r of which none falls into a restart,

    (1 / r + R) (exp(r (t + d)) - 1)

(after Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps",
section 2). Its optimum is about t = sqrt(2 d / r) (Young 1974).

A run that goes on without the lost rank computes one step again, or the islands of that rank from
their last synchronisation on, and has fewer ranks from then on; `simulation` plays that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_CHECKPOINT_SECONDS = 1e-3
MANY = 700.0  # exp of more is beyond float64


@dataclass(frozen=True)
class Failures:
    """How often hosts fail, and what it takes to go on.

    mtbf_seconds: mean time between failures of one host; 0: never. restart_seconds: until training
    goes on after a job has ended; repair_seconds: after ranks were lost that it can do without.
    checkpoint_seconds: for which a checkpoint holds up training; checkpoint_interval: seconds
    between them, 0: the best.
    """

    mtbf_seconds: float = 0.0
    restart_seconds: float = 60.0
    repair_seconds: float = 0.1
    checkpoint_seconds: float = 0.1
    checkpoint_interval: float = 0.0

    def rate(self, num_hosts: int) -> float:
        """Failures a second."""
        return num_hosts / self.mtbf_seconds if self.mtbf_seconds else 0.0

    def interval(self, num_hosts: int) -> float:
        """Seconds of progress between checkpoints."""
        if self.checkpoint_interval or not self.mtbf_seconds:
            return self.checkpoint_interval or math.inf
        held_up = max(self.checkpoint_seconds, LEAST_CHECKPOINT_SECONDS)
        return math.sqrt(2 * held_up / self.rate(num_hosts))

    def factor(self, num_hosts: int) -> float:
        """How many times as long a run takes that is started again after every failure."""
        rate, interval = self.rate(num_hosts), self.interval(num_hosts)
        if not rate:
            return 1.0 + (self.checkpoint_seconds / interval if interval < math.inf else 0.0)
        exponent = rate * (interval + self.checkpoint_seconds)
        if exponent > MANY:
            return math.inf
        return (1 / rate + self.restart_seconds) * math.expm1(exponent) / interval
