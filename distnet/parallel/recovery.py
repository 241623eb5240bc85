"""Going on without ranks that are gone: a thin layer over ULFM, which Open MPI has since 5.0.

User Level Failure Mitigation (Bland et al. 2013, doi 10.1177/1094342013488238) is switched on by
`mpirun --with-ft ulfm` alone; without that flag a lost rank ends the job, as with any other MPI.
Few of its calls proved dependable, and these are used:

- A rank that is *killed by a signal* is noticed, within milliseconds, by those that wait for it.
  One that exits with an error code, or aborts, is not: the others would wait for it forever. So a
  rank that fails ends itself by SIGKILL (`die`).
- Those that notice *revoke* the communicator: all calls of all ranks on it fail from then on, so
  every survivor notices. All then *shrink* it to a new one, of the survivors.
- A call in which a rank is lost may succeed on some ranks, so what decides how to go on is
  *agreed* upon: MPI_Comm_agree fails on all ranks if one has failed.
- It may also fail in words that say nothing of a loss: MPI_ERR_OTHER is what Open MPI 5.0.11 tells
  the root of some broadcasts. So MPI is asked whether it knows of one: see `ReportsLoss`.
- MPI_Finalize may hang after a loss, so ranks leave by `os._exit` (`leave`).

`mpi_communicator` uses this; what training does about a loss is in `training.elastic`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import zlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from distnet.parallel.errors import RankLost

if TYPE_CHECKING:
    from mpi4py import MPI


def can_survive_losses(environ: Mapping[str, str]) -> bool:
    """Whether this process was started by `mpirun --with-ft ulfm`, which leaves this mark."""
    return environ.get("OMPI_MCA_mpi_ft_enable") in ("1", "true")


class ReportsLoss:
    """A context for calls on `comm`, whose errors that come of a loss are raised as RankLost.

    That is any error, where losses can be survived, if a rank is known to be gone by then.
    """

    def __init__(self, comm: MPI.Intracomm, survives_losses: bool) -> None:
        from mpi4py import MPI

        self._comm, self._survives_losses = comm, survives_losses
        self._error = MPI.Exception
        self._classes = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, self._error) and self._comes_of_loss(error):
            raise RankLost(error.Get_error_string()) from None

    def _comes_of_loss(self, error: MPI.Exception) -> bool:
        if error.Get_error_class() in self._classes:
            return True
        return self._survives_losses and (
            self._comm.Is_revoked() or self._comm.Get_failed().size > 0
        )


def give_up(comm: MPI.Intracomm, in_flight: Sequence[MPI.Request]) -> None:
    """Makes all calls of all ranks on `comm` fail; its `in_flight` requests are over."""
    from mpi4py import MPI

    comm.Revoke()
    for request in in_flight:
        with contextlib.suppress(MPI.Exception):
            request.Wait()  # returns at once, and MPI no longer touches the array


def shrink(comm: MPI.Intracomm) -> MPI.Intracomm:
    """The survivors of `comm`, which is given up, in the same order.

    Every survivor has to call it. It returns on all of them, or on none, and not before all have
    the new one: Open MPI 5.0.11 crashes where one is revoked that it still builds. (It does so too
    where a rank is lost meanwhile: that is nothing that can be done about here.)
    """
    from mpi4py import MPI

    survivors = MPI.Intracomm(comm.Shrink())
    with contextlib.suppress(MPI.Exception):  # of a loss, which the new one tells as well
        comm.Agree(1)
    return survivors


def gather_checked(comm: MPI.Intracomm, value: Any) -> list[Any]:
    """`comm.allgather(value)` that raises RankLost instead of returning, or choking on, garbage.

    Open MPI 5.0.11 was seen to report success to a rank whose partner had died in the call.
    """
    from mpi4py import MPI

    content = pickle.dumps(value)
    try:
        gathered = comm.allgather((zlib.crc32(content), content))
        if all(zlib.crc32(received) == crc for crc, received in gathered):
            return [pickle.loads(received) for _, received in gathered]
    except MPI.Exception:
        raise
    except Exception as error:  # whatever a damaged pickle leads to
        raise RankLost(f"a damaged message ({error})") from None
    raise RankLost("a damaged message")


def die() -> NoReturn:
    """Ends this process in the only way that the others are sure to notice."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code, without MPI_Finalize."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
