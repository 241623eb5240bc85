"""What a process of PyTorch's DistributedDataParallel does in `bench scaling`: gloo, one thread.

Each process has its share of the global batch. Started by `jobs.run_group`, side by side with the
others, whose addresses are in the environment.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

from distnet.base.command import begin_command
from distnet.benchmarks.networks import CASES, torch_step


def main(argv: list[str]) -> int:
    """Does the task of the command line."""
    begin_command()
    task = json.loads(argv[0])
    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    distributed.init_process_group("gloo")
    try:
        share = task["batch_size"] // distributed.get_world_size()
        step = torch_step(
            CASES[task["model"]],
            share,
            task["channels_last"],
            torch.nn.parallel.DistributedDataParallel,
        )
        for _ in range(task["warmups"]):
            step()
        distributed.barrier()
        began = time.perf_counter()
        for _ in range(task["steps"]):
            step()
        distributed.barrier()
        seconds = time.perf_counter() - began
        num_images = task["steps"] * share * distributed.get_world_size()
        if os.environ["RANK"] == "0":
            print(json.dumps({"images_per_second": num_images / seconds}), flush=True)
    finally:
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
