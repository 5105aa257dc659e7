"""The command in processes that are cheap to start: forks of one that has imported everything, but run nothing."""

import contextlib
import ctypes
import json
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

import psutil

from tests.conftest import TINY

# Two trainings in seconds.
FAST = ("student=linear", "train.jit=off", "teacher.num_trees=3")

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pipeline.run", "pipeline.cli", "pipeline.report"])
_WRITES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"}


def metrics(result):
    """What must be the same bit for bit after any fault."""
    result = json.loads(json.dumps(result))
    models = {name: (model["metrics"], model["parameters"]) for name, model in result["models"].items()}
    return models, result["agreement"], result["comparisons"], result["data"]


def start(folder, *overrides, log="stderr", tiny=(*TINY, *FAST), **limits):
    """A process that runs the command in `folder`; its output goes to `folder`/`log`."""
    command = [*tiny, "run_dir=run", "cache_dir=cache", *overrides]
    command.sort(key=lambda word: word.startswith("--"))  # stable: flags come last
    process = _CONTEXT.Process(target=_command, args=(folder, command, log, limits))
    process.start()
    return process


def run(folder, *overrides, log="stderr", **limits):
    """-> (exit code, what was written to the terminal)."""
    process = start(folder, *overrides, log=log, **limits)
    process.join()
    return process.exitcode, (Path(folder) / log).read_text(errors="replace")


def _command(folder, command, log, limits):
    """Limits: kill_at=(part of a path, number of the write), file_bytes, memory_bytes (beyond what is used now),
    without_capabilities, threads."""
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["rankdistil", *command]
    if "kill_at" in limits:
        _kill_at(*limits["kill_at"])
    if "file_bytes" in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"],) * 2)
    import tensorflow as tf

    if "threads" in limits:
        tf.config.threading.set_intra_op_parallelism_threads(limits["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(limits["threads"])
        os.environ["OMP_NUM_THREADS"] = str(limits["threads"])  # for LightGBM
    if "memory_bytes" in limits:
        tf.zeros([])  # starts its threads: without memory for these it ends by itself, with no error to read
        now = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (now + limits["memory_bytes"],) * 2)
    if limits.get("without_capabilities"):
        _drop_capabilities()
    from pipeline import cli

    cli.main()


def _drop_capabilities():
    """root becomes a user like others: what belongs to another user is not its own. Linux."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def _kill_at(where, write):
    """SIGKILL at the start of that write to a path with `where` in it, counted from 1."""
    count = 0

    def hook(event, args):
        nonlocal count
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if (event == "open" or event in _WRITES) and where in str(args[0]):
            count += 1
            if count == write:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def finished(folder):
    """Inode and change time of the manifest of each finished artifact: another one, and it was made again."""
    facts = {}
    for path in (Path(folder) / "cache").glob("*/*/manifest.json"):
        with contextlib.suppress(FileNotFoundError):
            if path.parent.suffix != ".work":
                stat = path.stat()
                facts[path.parent.name] = (stat.st_ino, stat.st_ctime_ns)
    return facts
