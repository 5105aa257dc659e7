"""SIGTERM and Ctrl-C while a model is trained."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training stopped early and has saved where it was; the same command goes on from there."""


@contextlib.contextmanager
def between_steps(signals: list[int], strategy: tf.distribute.Strategy) -> Iterator[None]:
    """SIGTERM and Ctrl-C in the block are noted in `signals` only, and end it where training saves, or at its end.

    TensorFlow bears no KeyboardInterrupt in the Python that its C++ calls: it ends with an error of its own, or with a
    segmentation fault. Among several workers, who would wait for this one, Ctrl-C comes at once, as a second one does;
    at once is when TensorFlow's call is over.

    Raises:
      KeyboardInterrupt, Interrupted: in the end, by the signal, unless something else was raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: object) -> None:
        signals.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log.warning("stopping")

    numbers: list[int] = [signal.SIGTERM]
    alone = not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    if alone and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, note)
        yield
        if signals:
            raise Interrupted("stopped; run again to go on")
    except Interrupted:
        if signal.SIGINT in signals:
            raise KeyboardInterrupt from None
        raise
    finally:
        for of_signal, handler in before.items():
            signal.signal(of_signal, handler)
