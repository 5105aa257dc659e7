import os

import pytest

from pipeline.threads import num_threads


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("4,2", 4), (" 5 ", 5)])
def test_omp_num_threads_decides(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert num_threads() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
@pytest.mark.parametrize("value", [None, "", "0", "many"])
def test_otherwise_the_cpu_affinity_decides(monkeypatch, value):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert num_threads() == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert num_threads() == len(cores)
