"""The old name of `pipeline.training.distribute`."""

from pipeline.training.distribute import any_worker, is_chief, make_strategy, make_together

__all__ = ["any_worker", "is_chief", "make_strategy", "make_together"]
