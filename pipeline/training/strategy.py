"""tf.distribute strategies by name."""

from __future__ import annotations

import tensorflow as tf

from pipeline.config import ConfigError


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy `name`; `auto` is mirrored where there are several GPUs, else one_device.

    Raises:
      ConfigError: the devices that the strategy needs are not there; names those that are.
    """
    gpus, cpus = tf.config.list_logical_devices("GPU"), tf.config.list_logical_devices("CPU")
    devices = [device.name for device in (gpus or cpus)]
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "one_device"
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if len(devices) < 2:
        raise ConfigError(
            f"train.strategy=mirrored needs at least two devices of one kind; found {', '.join(devices)}. "
            "mend: train.strategy=one_device"
        )
    return tf.distribute.MirroredStrategy(devices)
