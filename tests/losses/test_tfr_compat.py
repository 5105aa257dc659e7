"""tensorflow-ranking without tf.estimator."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pipeline  # noqa: F401  (before tensorflow)

import tensorflow as tf  # isort: skip

from pipeline.losses import tfr_compat


def test_tfr_loads_and_the_stand_ins_are_gone() -> None:
    tfr = tfr_compat.load_tfr()
    assert tfr.keras.losses.CoupledRankDistilLoss
    assert tfr_compat.load_tfr() is tfr
    assert "tensorflow.estimator" not in sys.modules


def test_stand_ins_can_be_subclassed_and_raise_when_called() -> None:
    with tfr_compat._estimator_stand_ins():
        from tensorflow import estimator

        class Estimator(estimator.Estimator):
            pass

        assert estimator.ModeKeys.TRAIN
        for stand_in in Estimator, estimator.EstimatorSpec, estimator.export.PredictOutput:
            with pytest.raises(RuntimeError, match="not part of TensorFlow"):
                stand_in()


def test_keras_3_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.keras, "__version__", "3.5.0", raising=False)
    with pytest.raises(RuntimeError, match=r"Keras 3\.5\.0\. Fix: .*TF_USE_LEGACY_KERAS=1"):
        tfr_compat.load_tfr.__wrapped__()


def test_losses_do_not_import_tfr() -> None:
    code = "import sys, pipeline.losses; assert 'tensorflow_ranking' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
