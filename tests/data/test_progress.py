import os
import pty
import re
import subprocess
import sys

PROGRAM = """
import sys
from pathlib import Path
from pipeline.data import read_letor
from pipeline.data.progress import reading
with reading("train.txt") as progress:
    data = read_letor(sys.argv[1], progress=progress)
print("documents", data.num_docs)
"""


def test_bytes_and_rate_on_a_terminal_and_nothing_elsewhere(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("1 qid:1 1:0.5 2:3\n" * 100_000)
    command = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("documents 100000\n", "")

    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                break
            shown += part
            if not part:
                break
    os.close(ours)
    assert process.returncode == 0
    assert b"reading train.txt" in shown
    assert b"1.8/1.8 MB" in shown
    assert re.search(rb"[kMGT]?B/s", shown), shown  # which unit is the machine's speed
