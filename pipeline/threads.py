"""How many threads this process should use."""

from __future__ import annotations

import os


def num_threads() -> int:
    """OMP_NUM_THREADS where it is set, otherwise the number of CPU cores that this process may use.

    A container or `taskset` limits the cores of a process by its CPU affinity, which `os.cpu_count` ignores. Of a list
    such as OMP_NUM_THREADS=4,2, one number for each nesting level, the first one counts.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
