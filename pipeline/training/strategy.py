"""tf.distribute strategies by name."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import (
    expand_hostlist,
    expand_tasks_per_node,
)

from pipeline.config import ConfigError, NetworkConfig, TrainConfig
from pipeline.training.signals import Interrupted

log = logging.getLogger(__name__)

_MANY_LISTS = 128  # of a batch: it then has chunks as a rule


def share_cores(
    train: TrainConfig, networks: Sequence[NetworkConfig], *, num_cores: int | None = None
) -> None:
    """On two cores, keeps each operation of TensorFlow on one where two chunks of a batch are computed at a time.

    Two threads within a product of a chunk bring less than two products do. It holds for the process, and only before
    TensorFlow has begun: call it before `make_strategy`. What the environment or the caller has chosen stays. Nor is
    it done where a batch is one chunk (see `fit`), nor on more cores, all of which the operations share.

    Args:
      train: of the student, and whatever a network does not say itself.
      networks: that are trained in this process.
      num_cores: None: those that this process may use.
    """
    if num_cores is None:
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lists = min([train.lists_per_batch, *(getattr(n, "lists_per_batch", _MANY_LISTS) for n in networks)])
    in_chunks = (
        lists >= _MANY_LISTS
        and train.jit != "step"
        and train.strategy in ("auto", "one_device")
        and len(_tf_config_workers()) < 2
        and not any(n.batch_norm or n.dropout or n.input_batch_norm or n.input_noise for n in networks)
        and not tf.config.list_physical_devices("GPU")
    )
    is_chosen = (
        "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.threading.get_intra_op_parallelism_threads()
    )
    if num_cores == 2 and in_chunks and not is_chosen:
        with contextlib.suppress(RuntimeError):  # it has begun
            tf.config.threading.set_intra_op_parallelism_threads(1)


def make_strategy(name: str, *, tpu: str | None = None) -> tf.distribute.Strategy:
    """The strategy `name`. Several workers must make it before they run anything else.

    - `auto`: multi_worker where TF_CONFIG names several workers, tpu where TPU_NAME or `tpu` names one, mirrored
      where there are several GPUs, else one_device.
    - `one_device`: the first GPU, or the CPU.
    - `mirrored`: all GPUs of this machine, or all logical CPU devices.
    - `multi_worker`: one process a worker, found through TF_CONFIG, or through SLURM's variables (`srun`).
    - `tpu`: the TPU `tpu`, or the one that TPU_NAME names; "local" for a TPU VM. Not run by us on a TPU.

    Raises:
      ConfigError: what the strategy needs is not there; names what is.
    """
    gpus = tf.config.list_physical_devices("GPU")
    tpu = tpu or os.environ.get("TPU_NAME")
    if name == "auto":
        if len(_tf_config_workers()) > 1:
            name = "multi_worker"
        elif tpu:
            name = "tpu"
        else:
            name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "multi_worker":
        return _multi_worker(nccl=bool(gpus))
    if name == "tpu":
        return _tpu(tpu)
    kind = "GPU" if gpus else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if len(devices) < 2:
        raise ConfigError(
            f"train.strategy=mirrored needs at least two devices of one kind; found {', '.join(devices)}. "
            "mend: train.strategy=one_device"
        )
    return _mirrored(tuple(devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One a process: two would number their collectives alike, and TensorFlow takes those of equal number for one."""
    return tf.distribute.MirroredStrategy(devices)


def _tf_config_workers() -> list[str]:
    """Addresses of the chief and the workers in TF_CONFIG; none without it."""
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        cluster = json.loads(text).get("cluster", {})
        return [*cluster.get("chief", []), *cluster.get("worker", [])]
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"TF_CONFIG={text!r} is not the JSON that TensorFlow describes: {error}") from None


def _of_tf_config() -> tf.distribute.cluster_resolver.ClusterResolver:
    config = json.loads(os.environ["TF_CONFIG"])
    task, cluster = config.get("task"), config["cluster"]
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if kind not in ("chief", "worker") or str(index) not in map(str, range(len(cluster.get(kind, [])))):
        raise ConfigError(
            f"the task {task} in TF_CONFIG is no chief or worker of its cluster {cluster}; mend: "
            '"task": {"type": "worker", "index": 0} in the first worker, 1 in the second, and so on'
        )
    if "ps" in cluster:
        raise ConfigError(
            "TF_CONFIG names parameter servers, which train.strategy=multi_worker has none of; mend: leave 'ps' out"
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _of_slurm() -> tf.distribute.cluster_resolver.ClusterResolver:
    """(TensorFlow's own needs as many GPUs as tasks, and takes node10 for the node before node9.)"""
    hosts = expand_hostlist(os.environ["SLURM_STEP_NODELIST"])
    tasks = expand_tasks_per_node(os.environ["SLURM_STEP_TASKS_PER_NODE"])
    rank, node = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NODEID"])
    local = rank - sum(tasks[:node])
    if not 0 <= local < tasks[node]:
        raise ConfigError(f"srun put task {rank} on node {node} of {hosts}; mend: srun --distribution=block")
    port = 10000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 20000  # two jobs may share a node
    workers = [f"{host}:{port + i}" for host, number in zip(hosts, tasks, strict=True) for i in range(number)]
    gpus = tf.config.list_physical_devices("GPU")
    if share := len(gpus) // tasks[node]:  # else srun gave each task its own
        gpus = gpus[local * share : (local + 1) * share]
        tf.config.set_visible_devices(gpus, "GPU")
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": workers}),
        task_type="worker",
        task_id=rank,
        num_accelerators={"GPU": len(gpus)},
        rpc_layer="grpc",
    )


def _multi_worker(*, nccl: bool) -> tf.distribute.Strategy:
    if _tf_config_workers():
        resolver = _of_tf_config()
    elif "SLURM_STEP_NUM_TASKS" in os.environ:
        resolver = _of_slurm()
    else:
        raise ConfigError(
            "train.strategy=multi_worker finds neither TF_CONFIG nor SLURM's variables; mend: set TF_CONFIG in each "
            "worker, start them with srun, or train.strategy=auto"
        )
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.NCCL if nccl else communication.RING
    )
    log.info("waiting until all workers are there: %s", resolver.cluster_spec().as_dict())
    with _ctrl_c_at_once():
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


@contextlib.contextmanager
def _ctrl_c_at_once() -> Iterator[None]:
    """Ctrl-C ends the process in the block, where TensorFlow waits without Python. (SIGTERM TensorFlow takes for itself
    meanwhile, and would keep.) Afterwards Python has both."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for of_signal, handler in before.items():
            signal.signal(of_signal, handler)


def _tpu(name: str | None) -> tf.distribute.Strategy:
    if name is None:
        raise ConfigError(
            "train.strategy=tpu needs the name of the TPU; mend: train.tpu=NAME, train.tpu=local on a TPU VM, or "
            "the variable TPU_NAME"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        found = ", ".join(device.name for device in tf.config.list_physical_devices())
        raise ConfigError(f"train.strategy=tpu: there is no TPU {name!r} ({error}); found {found}") from error
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """An error of TensorFlow's because a worker is no longer there, as Interrupted."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        of_others = re.search("collective|coordination|connection|heartbeat", str(error), re.IGNORECASE)
        if not of_others or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise Interrupted(
            f"another worker is gone ({first_line}); start all workers again with the same command, they go on after "
            "the last whole epoch"
        ) from error


@functools.cache
def _summing(strategy: tf.distribute.Strategy) -> Any:
    return tf.function(
        lambda number: strategy.reduce(
            tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, [number]), axis=None
        ),
        autograph=False,
    )


def sum_over_replicas(strategy: tf.distribute.Strategy, number: int) -> int:
    """The sum of what the worker of each replica says. All workers call it; those that do wait for the rest.

    Raises:
      Interrupted: another worker is gone.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return number * strategy.num_replicas_in_sync
    with lost_workers_named(strategy):
        return int(_summing(strategy)(tf.constant(number, tf.int64)))


def any_worker(strategy: tf.distribute.Strategy, says: bool) -> bool:
    """Whether some worker says so; see `sum_over_replicas`."""
    return sum_over_replicas(strategy, int(says)) > 0


def make_together(
    strategy: tf.distribute.Strategy,
    get: Callable[[Callable[[Path], None]], Path],
    make: Callable[[Path], None],
    work: Path,
) -> Path | None:
    """An artifact that all workers train together; all call this at the same time.

    The chief's `get`, `Store.get` of it, calls `make` where the artifact is not whole; then the others do, too, with a
    folder `work` where they keep nothing.

    Returns:
      What `get` did; None of the others.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return get(make)
    if not is_chief(strategy):
        if any_worker(strategy, False):
            make(work)
            any_worker(strategy, False)  # the artifact is there when the chief asks this, too
        return None

    def make_with_the_others(folder: Path) -> None:
        any_worker(strategy, True)
        make(folder)

    path = get(make_with_the_others)
    any_worker(strategy, False)
    return path


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all workers make together."""
    resolver = strategy.cluster_resolver
    if resolver is None or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().jobs
    )
