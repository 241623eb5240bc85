"""What another Python than this one says of itself, as one JSON line."""

from __future__ import annotations

import json
import platform

from distnet.benchmarks.rounds import describe_machine
from distnet.checkup.starting import mpi_library

if __name__ == "__main__":
    library, _problem = mpi_library()
    about = {"machine": platform.machine(), "description": describe_machine(), "mpi": library}
    print(json.dumps(about))
