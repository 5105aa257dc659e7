"""SIGTERM and Ctrl-C while a model is trained."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training stopped early and saved its state; the same command goes on from there."""


@contextlib.contextmanager
def between_steps(signals: list[int], strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Signals in this block are only appended to `signals`; training looks there between two steps, saves and stops.

    A second Ctrl-C ends the block at once. With several workers the first one does: the others would wait for this one.

    Raises:
      KeyboardInterrupt, Interrupted: at the end of the block, after a signal, unless the block itself raised.
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


def waiting_for_tensorflow(call: Callable[[], Any], *, takes_signals: bool = False) -> Any:
    """The result of a call that waits for other workers. Meanwhile this process obeys signals.

    The call runs in a thread of its own: the main thread, where Python handles signals, would be stuck in TensorFlow.

    Args:
      call: without arguments.
      takes_signals: whether TensorFlow installs its own signal handlers during the call; they are replaced again.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised again by the main thread
            errors.append(error)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if takes_signals:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if errors:
        raise errors[0]
    return results[0]
