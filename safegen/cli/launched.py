"""One command in several processes, as `accelerate launch` starts them: the first runs it, the others follow."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run_launched(command: Callable[[], int], *, rank: int) -> int:
    """Run a command in the first process, help in the others, and return the exit code of this one.

    Args:
        command: Runs the whole command.
        rank: Number of this process, from 0.
    """
    from safegen.errors import SafegenError
    from safegen.pipeline.followers import follow, leading

    if rank == 0:
        with leading():
            return command()
    try:
        follow()
    except SafegenError as error:
        sys.stderr.write(f"process {rank}: {error}\n")
        return 3
    return 0
