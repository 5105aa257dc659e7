"""Who the workers of train.strategy=multi_worker are, and the wait until all have started."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from typing import Any

import tensorflow as tf

from pipeline.config import ConfigError
from pipeline.errors import UserError

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
_SECONDS_BETWEEN_TRIES = 0.2


def _tf_config() -> dict[str, Any]:
    """TF_CONFIG, with a cluster of lists of addresses; {} without the variable."""
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    cluster = config.get("cluster", {}) if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not all(isinstance(tasks, list) for tasks in cluster.values()):
        raise ConfigError("is not the JSON that TensorFlow needs", where=f"TF_CONFIG={text}", fix=_EXAMPLE)
    for kind in ("chief", "worker"):
        for address in cluster.get(kind, []):
            host, port = _host_and_port(address)
            if not host or not 1 <= port <= 65535:
                raise ConfigError(
                    f"the address {address!r} of a {kind} is not HOST:PORT",
                    where="TF_CONFIG",
                    fix="give each worker an address such as host1:2222",
                )
    return {**config, "cluster": cluster}


def _host_and_port(address: Any) -> tuple[str, int]:
    """
    >>> _host_and_port("host1:2222"), _host_and_port("[::1]:80"), _host_and_port("host1")
    (('host1', 2222), ('::1', 80), ('', 0))
    """
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/]+):(\d+)", str(address), re.ASCII)
    return (match[1].strip("[]"), int(match[2])) if match else ("", 0)


def tf_config_workers() -> list[str]:
    """The addresses of the chief and the workers in TF_CONFIG; none without it."""
    cluster = _tf_config()["cluster"]
    return [*cluster.get("chief", []), *cluster.get("worker", [])]


def find_workers() -> tf.distribute.cluster_resolver.ClusterResolver:
    """The cluster of TF_CONFIG, or that of SLURM."""
    if tf_config_workers():
        return _of_tf_config()
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return _of_slurm()
    raise ConfigError(
        "found neither TF_CONFIG nor the variables of SLURM",
        where="train.strategy=multi_worker",
        fix="set TF_CONFIG in each worker, start the workers with srun, or use train.strategy=auto",
    )


def _of_tf_config() -> tf.distribute.cluster_resolver.ClusterResolver:
    config = _tf_config()
    task, cluster = config.get("task"), config["cluster"]
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if kind not in ("chief", "worker") or str(index) not in map(str, range(len(cluster.get(kind, [])))):
        raise ConfigError(
            f"the task {task} is not a chief or worker of the cluster {cluster}",
            where="TF_CONFIG",
            fix='"task": {"type": "worker", "index": 0} in the first worker, 1 in the second, and so on',
        )
    if "ps" in cluster:
        raise ConfigError(
            "names parameter servers, but multi_worker has none", where="TF_CONFIG", fix="leave out 'ps'"
        )
    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _of_slurm() -> tf.distribute.cluster_resolver.ClusterResolver:
    """(TensorFlow's own resolver needs as many GPUs as tasks, and sorts node10 before node9.)"""
    hosts = expand_hosts(os.environ["SLURM_STEP_NODELIST"])
    tasks = expand_tasks(os.environ["SLURM_STEP_TASKS_PER_NODE"])
    rank, node = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NODEID"])
    local = rank - sum(tasks[:node])
    if len(hosts) != len(tasks) or not 0 <= local < tasks[node]:
        raise ConfigError(
            f"srun put task {rank} on node {node} of {hosts} with {tasks} tasks",
            fix="srun --distribution=block",
        )
    port = 10000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 20000  # two jobs may share a node
    workers = [f"{host}:{port + i}" for host, number in zip(hosts, tasks, strict=True) for i in range(number)]
    gpus = tf.config.list_physical_devices("GPU")
    if share := len(gpus) // tasks[node]:  # otherwise srun gave each task its own
        gpus = gpus[local * share : (local + 1) * share]
        tf.config.set_visible_devices(gpus, "GPU")
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": workers}),
        task_type="worker",
        task_id=rank,
        num_accelerators={"GPU": len(gpus)},
        rpc_layer="grpc",
    )


def expand_hosts(text: str) -> list[str]:
    """The hosts of SLURM's short form.

    >>> expand_hosts("node[9-10,12],rack[1-2]-n[08-09],x")
    ['node9', 'node10', 'node12', 'rack1-n08', 'rack1-n09', 'rack2-n08', 'rack2-n09', 'x']
    """
    hosts = []
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        names = [""]
        for plain, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", entry):
            parts = [plain] if plain else []
            for part in ranges.split(",") if ranges else []:
                first, _, last = part.partition("-")
                numbers = range(int(first), int(last or first) + 1)
                parts += [str(number).zfill(len(first)) for number in numbers]
            names = [name + part for name in names for part in parts]
        hosts += names
    return hosts


def expand_tasks(text: str) -> list[int]:
    """The tasks of each node from SLURM's short form.

    >>> expand_tasks("2(x3),1")
    [2, 2, 2, 1]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(number) for number, times in found for _ in range(int(times or 1))]


def wait_for_workers(resolver: tf.distribute.cluster_resolver.ClusterResolver, timeout_s: float) -> None:
    """Returns when all workers have started.

    TensorFlow's own wait cannot be interrupted and does not say who is missing. Here each worker opens its port, and
    tries the ports of the others until each has answered once. Then TensorFlow opens the same ports again.

    Raises:
      UserError: some workers have not started within `timeout_s`; or this one's port is in use.
    """
    own = resolver.cluster_spec().task_address(resolver.task_type, resolver.task_id)
    missing = [address for tasks in resolver.cluster_spec().as_dict().values() for address in tasks]
    missing.remove(own)
    deadline = time.monotonic() + timeout_s
    number = len(missing)
    with _listening(own):
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{len(missing)} of the {number} other workers did not start within {timeout_s:g} s: "
                    f"{', '.join(missing)}",
                    where="train.strategy=multi_worker",
                    fix="start the same command on these, check that their ports can be reached, or raise "
                    "train.worker_timeout_s",
                )
            time.sleep(_SECONDS_BETWEEN_TRIES)


def _listening(address: str) -> socket.socket:
    port = _host_and_port(address)[1]
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"the port of this worker cannot be opened ({error})",
            where=address,
            fix="choose another port, or end the process that uses it",
        ) from None


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(_host_and_port(address), timeout=2):
        return True
    return False
