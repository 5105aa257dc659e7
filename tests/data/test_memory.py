"""The data stage in a process that may hold a third of the data (scripts/bench.py memory does whole runs)."""

import subprocess
import sys

import pytest

LIMIT_MB = 64
QUERIES = {"train": 480, "vali": 120, "test": 120}  # of 100 documents: 192 MiB in all

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.config import LetorData, TransformConfig
from pipeline.data.check import describe
from pipeline.data.splits import read_splits
from pipeline.data import transform as transform_module
from pipeline.data.transform import fit_transform

transform_module._SAMPLE_VALUES = 1 << 20  # as the data: a small part of the real one

def data_stage(folder, prefix):
    files = {split: str(folder / f"{prefix}{split}.txt") for split in ("train", "vali", "test")}
    out = folder / f"{prefix}out"
    out.mkdir()
    data = read_splits(LetorData(**files, num_features=700), out)
    described = describe(data)
    transform = fit_transform(TransformConfig(quantiles=8), data["train"].features)
    for split in data:
        transform.write(data[split].features, out / f"{split}.npy")
    return data, described, transform

folder, limit_mb = Path(sys.argv[1]), int(sys.argv[2])
data_stage(folder, "tiny-")  # threads, compiled code
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
used = int(status["VmData"].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (limit_mb << 20),) * 2)
try:
    np.ones((limit_mb << 20) + (16 << 20), np.uint8)
except MemoryError:
    pass
else:
    sys.exit("the limit does not hold")
data, described, transform = data_stage(folder, "")
num_bytes = sum(split.features.nbytes for split in data.values())
assert num_bytes >= 3 * (limit_mb << 20), num_bytes
assert described["splits"]["train"]["queries"] == data["train"].num_queries
first = transform(data["test"].features[:100])
np.testing.assert_array_equal(np.load(folder / "out" / "test.npy", mmap_mode="r")[:100], first)
print("documents", sum(split.num_docs for split in data.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mappings on Linux only")
def test_the_data_stage_in_a_third_of_the_memory(tmp_path):
    for prefix, share in (("tiny-", 100), ("", 1)):
        query = 0
        for split, num_queries in QUERIES.items():
            with (tmp_path / f"{prefix}{split}.txt").open("w") as file:
                for _ in range(num_queries // share + 1):
                    query += 1
                    for row in range(100):
                        entries = " ".join(
                            f"{c}:{(query * row * c) % 97}" for c in range(1 + row % 50, 701, 90)
                        )
                        file.write(f"{row % 3} qid:{query} {entries}\n")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(LIMIT_MB)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-2:] == ["documents", str(100 * sum(n + 1 for n in QUERIES.values()))]
