"""tf.distribute strategies by name, and what several workers agree on."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from pipeline.config import ConfigError
from pipeline.store import Artifact
from pipeline.training.cluster import find_workers, tf_config_workers, wait_for_workers
from pipeline.training.signals import Interrupted, waiting_for_tensorflow

log = logging.getLogger(__name__)


def make_strategy(
    name: str, *, tpu: str | None = None, worker_timeout_s: float = 900.0
) -> tf.distribute.Strategy:
    """The strategy `name`. Several workers must make it before they run anything else.

    - `auto`: multi_worker if TF_CONFIG names several workers, tpu if TPU_NAME or `tpu` names one, mirrored if there are
      several GPUs, otherwise one_device.
    - `one_device`: the first GPU, or the CPU.
    - `mirrored`: all GPUs of this machine, or all logical CPU devices.
    - `multi_worker`: one process for each worker, found through TF_CONFIG, or through SLURM's variables (`srun`).
    - `tpu`: the TPU `tpu`, or the one that TPU_NAME names; "local" for a TPU VM. Never run on a TPU.

    Args:
      name: of the strategy.
      tpu: name of the TPU.
      worker_timeout_s: how long multi_worker waits until all workers have started.

    Raises:
      ConfigError: something that the strategy needs is missing; names what is there.
    """
    gpus = tf.config.list_physical_devices("GPU")
    tpu = tpu or os.environ.get("TPU_NAME")
    if name == "auto":
        if len(tf_config_workers()) > 1:
            name = "multi_worker"
        elif tpu:
            name = "tpu"
        else:
            name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "multi_worker":
        return _multi_worker(nccl=bool(gpus), timeout_s=worker_timeout_s)
    if name == "tpu":
        return _tpu(tpu)
    kind = "GPU" if gpus else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if len(devices) < 2:
        raise ConfigError(
            f"needs at least two devices of one kind; found {', '.join(devices)}",
            where="train.strategy=mirrored",
            fix="train.strategy=one_device",
        )
    return _mirrored(tuple(devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Cached for the process: two strategies would use the same numbers for their collectives."""
    return tf.distribute.MirroredStrategy(devices)


def _multi_worker(*, nccl: bool, timeout_s: float) -> tf.distribute.Strategy:
    resolver = find_workers()
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.NCCL if nccl else communication.RING
    )
    log.info("waiting for all workers to start: %s", resolver.cluster_spec().as_dict())
    wait_for_workers(resolver, timeout_s)
    strategy: tf.distribute.Strategy = waiting_for_tensorflow(
        lambda: tf.distribute.MultiWorkerMirroredStrategy(resolver, options), takes_signals=True
    )
    return strategy


def _tpu(name: str | None) -> tf.distribute.Strategy:
    if name is None:
        raise ConfigError(
            "needs the name of the TPU",
            where="train.strategy=tpu",
            fix="train.tpu=NAME, train.tpu=local on a TPU VM, or the environment variable TPU_NAME",
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.NotFoundError, tf.errors.InvalidArgumentError) as error:
        found = ", ".join(device.name for device in tf.config.list_physical_devices())
        raise ConfigError(
            f"there is no TPU {name!r} ({error}); found {found}", where="train.strategy=tpu"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the error that TensorFlow raises when a worker has gone into Interrupted."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        of_others = re.search("collective|coordination|connection|heartbeat", str(error), re.IGNORECASE)
        if not of_others or not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise Interrupted(
            f"another worker is gone ({first_line}); start all workers again with the same command, they go on after "
            "the last complete epoch"
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
    """The sum of the numbers that the workers give, one for each replica. All workers call it and wait for the rest.

    Raises:
      Interrupted: another worker is gone.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return number * strategy.num_replicas_in_sync
    with lost_workers_named(strategy):
        total: int = waiting_for_tensorflow(lambda: int(_summing(strategy)(tf.constant(number, tf.int64))))
    return total


def any_worker(strategy: tf.distribute.Strategy, says: bool) -> bool:
    """Whether some worker says so; see `sum_over_replicas`."""
    return sum_over_replicas(strategy, int(says)) > 0


def make_together(strategy: tf.distribute.Strategy, artifact: Artifact, make: Callable[[Path], None]) -> Path:
    """Gets an artifact that all workers train together. All workers call this at the same time.

    If the artifact is not complete, the chief's store calls `make`; then the other workers call it, too.

    Args:
      strategy: of tf.distribute.
      artifact: what is trained.
      make: trains, and writes into a folder; in the other workers it writes nothing.

    Returns:
      The folder of the artifact; all workers return when it is complete.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return artifact.get(make)
    if not is_chief(strategy):
        if any_worker(strategy, False):
            make(artifact.work)
            any_worker(strategy, False)  # the chief asks this when the artifact is complete
        return artifact.path

    def make_with_the_others(folder: Path) -> None:
        any_worker(strategy, True)
        make(folder)

    path = artifact.get(make_with_the_others)
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
