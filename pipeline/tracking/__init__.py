"""Trackers: TensorBoard, CSV and MLflow behind one interface."""

from pipeline.tracking.options import Option, hyper_parameters
from pipeline.tracking.results import track_epoch, track_result
from pipeline.tracking.tensorboard import events_folder
from pipeline.tracking.trackers import Tracker, Trackers, open_trackers

__all__ = [
    "Option",
    "Tracker",
    "Trackers",
    "events_folder",
    "hyper_parameters",
    "open_trackers",
    "track_epoch",
    "track_result",
]
