import numpy as np
import pytest
import tensorflow as tf

from pipeline.config import ConfigError, TransformConfig
from pipeline.data import transform as module
from pipeline.data.transform import Transform, fit_transform
from tests.closeness import assert_close

RAW = np.random.default_rng(0).lognormal(0, 3, (1000, 5)).astype(np.float32)
RAW[:, 1] *= -1
RAW[:, 2] = 7  # constant
RAW[::2, 3] *= -1
RAW[:400, 4] = 0
CONFIGS = [
    TransformConfig(*log, quantiles, standardise, clip)
    for log in (
        (False, None, []),
        (True, None, []),
        (True, None, [1, 4]),
        (False, 0.01, []),
        (False, 0.01, [5]),
    )
    for quantiles in (None, 9)
    for standardise in (False, True)
    for clip in (None, 1.5)
]


def by_definition(config, raw, fitted):
    """float64, a feature at a time."""
    columns = []
    for feature in range(fitted.shape[1]):
        x, train = raw[:, feature].astype(np.float64), fitted[:, feature].astype(np.float64)
        sign = 1 if train.min() >= 0 else -1 if train.max() <= 0 else 0

        def log(values, sign=sign, feature=feature):
            if feature + 1 in config.log_except:
                return values
            if config.log1p:
                return np.sign(values) * np.log1p(np.abs(values))
            if config.log_offset and sign:
                return np.log(np.maximum(sign * values, 0) + config.log_offset)
            return values

        x, train = log(x), log(train)
        if config.quantiles:
            knots = np.quantile(train, np.linspace(0, 1, config.quantiles))
            shares = np.linspace(0, 1, config.quantiles)
            values = np.unique(knots)
            levels = [shares[knots == value].mean() for value in values]
            x, train = np.interp(x, values, levels), np.interp(train, values, levels)
        if config.standardise:
            x = (x - train.mean()) / (train.std() if train.std() > 1e-6 else 1)
        columns.append(np.clip(x, -config.clip, config.clip) if config.clip else x)
    return np.column_stack(columns)


@pytest.mark.parametrize("config", CONFIGS)
def test_numpy_and_graph_agree_with_the_definition(config, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VALUES", 5 * 300)  # several blocks, the last one smaller
    transform = fit_transform(config, RAW[:700])
    assert_close(transform(RAW), by_definition(config, RAW, RAW[:700]), rtol=2e-4, atol=2e-5)
    assert_close(transform.in_graph(RAW), transform(RAW), rtol=1e-5, atol=2e-6)
    lists = RAW.reshape(10, 100, 5)
    np.testing.assert_array_equal(tf.reshape(transform.in_graph(lists), [1000, 5]), transform.in_graph(RAW))


def test_dasalc_and_allrank_by_hand():
    raw = np.array([[-3.0, 0.0, -2.0], [8.0, 0.99, 0.0]], np.float32)
    dasalc = fit_transform(TransformConfig(standardise=False, clip=2.0), raw)(raw)
    assert_close(dasalc, [[-np.log(4), 0, -np.log(3)], [2, np.log(1.99), 0]], rtol=1e-6)
    allrank = fit_transform(TransformConfig(log1p=False, log_offset=0.01, standardise=False), raw)(raw)
    assert_close(allrank, [[-3, np.log(0.01), np.log(2.01)], [8, 0, np.log(0.01)]], rtol=1e-6, atol=1e-7)


def test_quantiles_are_places_and_shared_values_get_the_middle_of_theirs():
    raw = np.concatenate([np.zeros(50), np.arange(1, 51)]).astype(np.float32)[:, None]
    transform = fit_transform(TransformConfig(log1p=False, quantiles=101, standardise=False), raw)
    out = transform(np.array([[0], [50], [25], [-9], [99]], np.float32))[:, 0]
    assert out[0] == pytest.approx(0.25, abs=0.01)  # half of all are 0
    assert (out[1], out[3], out[4]) == (1, out[0], 1)
    assert out[2] == pytest.approx(0.75, abs=0.01)
    every = transform(raw)[:, 0]
    assert (np.diff(every) >= 0).all()


def test_statistics_come_from_the_fitted_split_alone():
    transform = fit_transform(TransformConfig(), RAW)
    other = transform(3 * RAW)
    assert abs(transform(RAW).mean()) < 1e-5
    assert abs(other.mean()) > 0.1


def test_save_load_and_write(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VALUES", 5 * 300)
    for config in CONFIGS:
        transform = fit_transform(config, RAW)
        transform.save(tmp_path)
        loaded = Transform.load(tmp_path)
        np.testing.assert_array_equal(loaded(RAW), transform(RAW))
        np.testing.assert_array_equal(loaded.in_graph(RAW), transform.in_graph(RAW))
        loaded.write(RAW, tmp_path / "out.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), transform(RAW))


def test_a_missing_value_counts_as_0(tmp_path):
    raw = RAW.copy()
    raw[::7] = -999
    filled = np.where(raw == -999, 0, raw).astype(np.float32)
    transform = fit_transform(TransformConfig(quantiles=8), filled, missing_value=-999.0)
    transform.save(tmp_path)
    for each in (transform, Transform.load(tmp_path)):
        np.testing.assert_array_equal(each(raw), each(filled))
        np.testing.assert_array_equal(each.in_graph(raw), each.in_graph(filled))
    assert not np.array_equal(fit_transform(TransformConfig(quantiles=8), filled)(raw), transform(raw))


def test_options_that_cannot_be():
    for options, wrong in (
        ({"log_offset": 0.01}, "data.transform.log1p=True"),
        ({"log_offset": 0.0, "log1p": False}, "data.transform.log_offset=0"),
        ({"log_except": [3], "log1p": False}, "data.transform.log_except"),
        ({"log_except": [0]}, "data.transform.log_except"),
        ({"quantiles": 1}, "data.transform.quantiles=1"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            TransformConfig(**options)
    with pytest.raises(ValueError, match="log_except names feature 6, but the data has 5"):
        fit_transform(TransformConfig(log_except=[6]), RAW)


TIMES = (1.7e9 + 1e5 * np.random.default_rng(0).standard_normal((300, 1))).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"log1p": False, "log_offset": 0.01}, {"quantiles": 10}])
def test_a_logarithm_that_float32_cannot_tell_apart_is_refused(options):
    """A time in seconds: numpy's and TensorFlow's logarithms differ by a unit in the last place, 0.03 deviations."""
    raw = np.concatenate([np.ones_like(TIMES), np.abs(TIMES - 1.7e9), TIMES], axis=1)
    with pytest.raises(
        ValueError, match=r"feature 3 goes from 1\.699.* Fix: data\.transform\.log_except=\[1,3\]"
    ):
        fit_transform(TransformConfig(log_except=[1], **options), raw)
    transform = fit_transform(TransformConfig(log_except=[1, 3], **options), raw)
    assert_close(transform.in_graph(tf.constant(raw)), transform(raw), atol=1e-4)
    assert transform(raw)[:, 2].std() > 0.2


def test_what_is_as_good_as_constant_stays_small():
    raw = np.full((1000, 1), 1.7e9, np.float32)
    raw[0] = np.nextafter(raw[0], np.inf)
    transform = fit_transform(TransformConfig(log1p=False), raw)
    assert np.abs(transform(raw)).max() < 1
