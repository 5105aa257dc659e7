"""The old name of `pipeline.training.loop`."""

from pipeline.training.loop import MONITOR, choose_jit, fit, load_history, load_weights

__all__ = ["MONITOR", "choose_jit", "fit", "load_history", "load_weights"]
