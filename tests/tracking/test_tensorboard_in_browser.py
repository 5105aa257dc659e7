"""TensorBoard itself, in a real browser: it shows our runs, tags, trials and histograms."""

import itertools
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from pipeline.tracking import open_trackers, track_epoch, track_result
from tests.conftest import tiny_config

MODELS = ("teacher", "baseline", "student")
TOPK, TEMPERATURE = (5, 10), (0.5, 2.0)


def track(root, topk, temperature):
    """What a run writes, with numbers of our own."""
    config = tiny_config(
        root,
        f"loss.topk={topk}",
        f"loss.temperature={temperature}",
        run=f"topk-{topk}-temperature-{temperature}",
    )
    rng = np.random.default_rng(0)
    per_query = {model: {"ndcg@10": np.append(rng.uniform(size=30), np.nan)} for model in MODELS}

    def ndcg(level):
        return {f"ndcg@{k}": dict.fromkeys(("skip", "zero", "one"), level) for k in (1, 5, 10)}

    level = {"teacher": 0.8, "baseline": 0.4, "student": 0.5 + topk / 100 + temperature / 100}
    models = {m: {"metrics": {split: ndcg(level[m]) for split in ("vali", "test")}} for m in MODELS}
    with open_trackers(config) as trackers:
        for model, epoch in itertools.product(("baseline", "student"), range(1, 6)):
            vali = dict.fromkeys(("ndcg@1", "ndcg@5", "ndcg@10"), level[model] - 0.3 / epoch)
            speed = {"learning_rate": 0.1, "steps_per_second": 9.0, "docs_per_second": 99.0}
            track_epoch(trackers, model, {"epoch": epoch, "loss": 1 / epoch, "vali": vali, **speed})
        track_result(trackers, models, per_query, {"baseline": 5, "student": 5}, "skip")
    return f"{config.run_dir.name}/events"


@pytest.fixture
def tensorboard(tmp_path):
    """The folder with the sweep, and TensorBoard's address."""
    runs = [track(tmp_path / "sweep", *options) for options in itertools.product(TOPK, TEMPERATURE)]
    log = (tmp_path / "tensorboard.log").open("w+")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", tmp_path / "sweep", "--port", "0"]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--load_fast=false"], stdout=log, stderr=log)
    try:
        for _ in range(300):
            time.sleep(0.2)
            text = (tmp_path / "tensorboard.log").read_text()
            if "http://" in text:
                break
            assert process.poll() is None, text
        address = "http://" + text.split("http://")[1].split()[0]
        loaded = f"{address}data/plugin/scalars/tags"
        for _ in range(300):  # it reads the folder after it starts
            if urllib.request.urlopen(loaded).read().count(b"/events/trial") == len(runs):
                break
            time.sleep(0.2)
        yield address, runs
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_it_shows_models_on_shared_charts_trials_and_histograms(tensorboard, browser, screenshots):
    address, runs = tensorboard
    browser.size(1500, 1200)

    browser.open(f"{address}#scalars")  # what a user sees first, without a click
    browser.wait_for(
        "tag: eval/vali ndcg@10 (skip)",
        "tag: eval/test ndcg@10 (skip)",
        "tag: train/loss",
        *(f"{run}/{model}" for run in runs for model in MODELS),
    )
    browser.wait_until(lambda: not browser.visible("paper-spinner-lite[active]"))
    browser.screenshot(screenshots / "tensorboard-scalars.png")

    browser.open(f"{address}#hparams")
    metrics = [
        "vs/NDCG@10 skip",
        "vs/baseline skip",
        "vs/teacher skip",
        "vs/vali skip",
    ]
    # values as the table rounds them: 0.5 + topk / 100 + temperature / 100
    browser.wait_for("loss.topk", "loss.temperature", *metrics, "0.55500", "0.57000", "0.60500", "0.62000")
    browser.screenshot(screenshots / "tensorboard-hparams-table.png")
    browser.click("PARALLEL COORDINATES VIEW")
    browser.wait_until(lambda: browser.visible("g.foreground path") == len(runs))
    browser.screenshot(screenshots / "tensorboard-hparams-parallel.png")

    browser.open(f"{address}#histograms")
    browser.wait_for("eval/test ndcg@10 of each query (skip)")
    browser.screenshot(screenshots / "tensorboard-histograms.png")
