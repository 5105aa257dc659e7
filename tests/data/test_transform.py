import numpy as np
import pytest

from pipeline.config import TransformConfig
from pipeline.data.transform import Transform, fit_transform

RAW = np.random.default_rng(0).lognormal(0, 3, (1000, 4)).astype(np.float32)
RAW[:, 1] *= -1
RAW[:, 2] = 7  # constant
CONFIGS = [
    TransformConfig(log1p, standardise, clip)
    for log1p in (0, 1)
    for standardise in (0, 1)
    for clip in (None, 1.5)
]


@pytest.mark.parametrize("config", CONFIGS)
def test_numpy_and_graph_agree_with_the_definition(config):
    transform = fit_transform(config, RAW)
    x = RAW.astype(np.float64)
    if config.log1p:
        x = np.sign(x) * np.log1p(np.abs(x))
    if config.standardise:
        deviation = x.std(0)
        deviation[2] = 1
        x = (x - x.mean(0)) / deviation
    if config.clip:
        x = np.clip(x, -config.clip, config.clip)
    np.testing.assert_allclose(transform(RAW), x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(transform.in_graph(RAW), transform(RAW), rtol=1e-5, atol=1e-6)


def test_statistics_come_from_the_fitted_split_alone():
    transform = fit_transform(TransformConfig(), RAW)
    other = transform(3 * RAW)
    assert abs(transform(RAW).mean()) < 1e-5
    assert abs(other.mean()) > 0.1


def test_save_and_load(tmp_path):
    for config in CONFIGS:
        transform = fit_transform(config, RAW)
        transform.save(tmp_path)
        loaded = Transform.load(tmp_path)
        assert (loaded.log1p, loaded.clip) == (transform.log1p, transform.clip)
        np.testing.assert_array_equal(loaded(RAW), transform(RAW))
