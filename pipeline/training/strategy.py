"""tf.distribute strategies by name."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Sequence

import tensorflow as tf

from pipeline.config import ConfigError, NetworkConfig
from pipeline.config.student import AttentionNetwork

_MANY_LISTS = 64  # of a batch: it then has chunks as a rule


def share_cores(
    lists_per_batch: int, networks: Sequence[NetworkConfig], *, num_cores: int | None = None
) -> None:
    """Lets an operation of TensorFlow use half of the cores where batches fall into chunks, two of which are computed
    at a time (`fit`): two threads within a product of that size bring less than two products do.

    Not where a batch is one chunk: there are few lists, or a network needs them all at once; nor with a GPU. What the
    environment or the caller has chosen stays, and so does everything once TensorFlow has begun to compute.

    Args:
      lists_per_batch: of the training.
      networks: that are trained in this process.
      num_cores: of the processor; None: those that this process may use.
    """
    by_chunk = lists_per_batch >= _MANY_LISTS and not any(
        isinstance(network, AttentionNetwork)
        or (network.batch_norm or network.dropout or network.input_batch_norm or network.input_noise)
        for network in networks
    )
    is_chosen = (
        "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.threading.get_intra_op_parallelism_threads()
    )
    if not by_chunk or is_chosen or tf.config.list_physical_devices("GPU"):
        return
    if num_cores is None:
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # it has begun
        tf.config.threading.set_intra_op_parallelism_threads(max(1, num_cores // 2))


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
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"TF_CONFIG={text!r} is not the JSON that TensorFlow describes: {error}") from None


def _multi_worker(*, nccl: bool) -> tf.distribute.Strategy:
    if _tf_config_workers():
        resolver: tf.distribute.cluster_resolver.ClusterResolver = (
            tf.distribute.cluster_resolver.TFConfigClusterResolver()
        )
    elif "SLURM_STEP_NUM_TASKS" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    else:
        raise ConfigError(
            "train.strategy=multi_worker finds neither TF_CONFIG nor SLURM's variables; mend: set TF_CONFIG in each "
            "worker, start them with srun, or train.strategy=auto"
        )
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.NCCL if nccl else communication.RING
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)


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
