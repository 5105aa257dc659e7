import dataclasses

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from pipeline.config import ConfigError
from pipeline.training.profile import Profile
from tests.training.test_fit import CONFIG, numbers, train


def profiled(monkeypatch):
    """The calls of the profiler, in order; it still does its work."""
    calls = []
    for name in ("start", "stop"):
        real = getattr(tf.profiler.experimental, name)

        def call(*args, name=name, real=real):
            calls.append(name)
            real(*args)

        monkeypatch.setattr(tf.profiler.experimental, name, call)
    return calls


def test_the_steps_asked_for_are_profiled_and_the_numbers_stay(tmp_path, monkeypatch):
    calls = profiled(monkeypatch)
    config = dataclasses.replace(CONFIG, profile=[3, 6])  # over the end of the first epoch, which has 4
    _, with_profile = train(tmp_path / "a", config=config, profile_to=tmp_path / "events")
    assert calls == ["start", "stop"]
    (trace,) = (tmp_path / "events" / "plugins" / "profile").glob("*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    names = [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]
    assert names.count("train_step") == 4
    assert any("MatMul" in name for name in names)
    _, without = train(tmp_path / "b")
    assert calls == ["start", "stop"]
    assert numbers(with_profile) == numbers(without)


def test_more_steps_than_there_are(tmp_path):
    config = dataclasses.replace(CONFIG, profile=[3, 17])
    with pytest.raises(ConfigError, match=r"train\.profile=\[3, 17\].* 1 to 16"):
        train(tmp_path / "a", config=config, profile_to=tmp_path / "events")


def test_an_interruption_ends_the_profile(tmp_path, monkeypatch):
    calls = profiled(monkeypatch)

    def train_until_interrupted():
        with Profile([2, 9], tmp_path, num_steps=9) as profile:
            for step in range(2):
                profile.before(step)
                profile.after(step)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_until_interrupted()
    assert calls == ["start", "stop"]


def test_a_resumed_run_profiles_what_is_left(tmp_path, monkeypatch):
    calls = profiled(monkeypatch)
    with Profile([2, 5], tmp_path, num_steps=9) as profile:
        for step in range(3, 7):
            profile.before(step)
            assert calls == (["start"] if step < 5 else ["start", "stop"])
            profile.after(step)
    assert calls == ["start", "stop"]
