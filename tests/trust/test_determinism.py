"""The same metrics bit for bit on one and on two threads, and with a warm cache (from a wheel: tests/test_cli.py)."""

import json

from tests.trust.command import metrics, run

# Large enough that TensorFlow and LightGBM do share the work.
LARGER = ("data.train_queries=200", "teacher.num_trees=10", "student=mlp", "student.hidden=[128,64]")
LARGER += ("train.jit=auto", "train.epochs=2", "train.lists_per_batch=32", "train.baseline=false")


def test_threads_and_a_warm_cache_change_no_number(tmp_path, fault):
    found = {}
    for name, threads, cache in (("one", 1, "cold"), ("two", 2, "other"), ("warm", 2, "cold")):
        folders = (f"run_dir={name}", f"cache_dir={cache}")
        code, text = run(tmp_path, *LARGER, *folders, log=f"{name}.log", threads=threads)
        assert code == 0, text
        assert ("student (made before)" in text) == (name == "warm")
        found[name] = metrics(json.loads((tmp_path / name / "result.json").read_text()))
    with fault("one thread, two threads"):
        assert found["two"] == found["one"]
    with fault("a warm cache"):
        assert found["warm"] == found["one"]
