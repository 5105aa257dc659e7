"""Writes run folders with given per-query NDCG, for the tests of the report."""

import copy
import csv
import json

import numpy as np

CONFIG = {
    "stage": "all",
    "seed": 0,
    "run_dir": "runs",
    "cache_dir": "cache",
    "data": {"name": "synthetic", "seed": 0},
    "student": {"name": "mlp", "hidden": [128, 64]},
    "loss": {"name": "coupled_rankdistil", "topk": 10, "temperature": 1.0, "sample_size": 8},
    "train": {"baseline": True, "jit": "auto"},
    "tracking": {"writers": ["tensorboard"]},
    "evaluate": {"no_relevant": "skip", "ties": "index"},
}


def set_option(config, key, value):
    *groups, last = key.split(".")
    for group in groups:
        config = config[group]
    config[last] = value


def means(values):
    """The three conventions of a list of per-query values, None for a query without a relevant document."""
    judged = [v for v in values if v is not None]
    blank = len(values) - len(judged)
    skip = sum(judged) / len(judged) if judged else None
    return {"zero": sum(judged) / len(values), "skip": skip, "one": (sum(judged) + blank) / len(values)}


def model(values, *, vali, parameters, us_per_doc):
    def metrics(of_query):
        return {f"ndcg@{k}": means(of_query) for k in (1, 5, 10)} | {"mrr@10": 0.5, "map": 0.5}

    cost = {"parameters": parameters, "us_per_doc": us_per_doc, "us_per_doc_list120": us_per_doc}
    return {**cost, "metrics": {"vali": metrics([vali]), "test": metrics(values)}}


def make_run(
    folder,
    ndcg,
    *,
    seed=0,
    options=None,
    vali=0.5,
    cost=None,
    fingerprint="f" * 64,
    started="2026-01-01T00:00:00+00:00",
    command="rankdistil",
    query_ids=None,
    num_docs=None,
    num_relevant=None,
    gate=None,
):
    """A run whose `ndcg` is model -> NDCG of each test query (@1, @5 and @10 alike), None for a blank query."""
    config = copy.deepcopy(CONFIG) | {"seed": seed, "run_dir": str(folder)}
    for key, value in (options or {}).items():
        set_option(config, key, value)
    num_queries = len(ndcg["student"])
    query_ids = query_ids or [f"q{i}" for i in range(num_queries)]
    num_docs = num_docs or [10 * (i + 1) for i in range(num_queries)]
    num_relevant = num_relevant or [0 if v is None else 1 + i for i, v in enumerate(ndcg["student"])]
    cost = {"teacher": (5000, 20.0), "baseline": (300, 1.0), "student": (300, 1.0)} | (cost or {})
    result = {
        "run": {
            "seed": seed,
            "command": command,
            "commit": None,
            "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
            "device": "CPU x86_64, 2 cores",
            "started": started,
            "seconds": {"data": 0.1},
        },
        "config": config,
        "data": {
            "name": config["data"]["name"],
            "fingerprint": fingerprint,
            "splits": {
                "test": {
                    "queries": num_queries,
                    "docs": sum(num_docs),
                    "blank_queries": sum(v is None for v in ndcg["student"]),
                }
            },
        },
        "models": {
            name: model(values, vali=vali, parameters=cost[name][0], us_per_doc=cost[name][1])
            for name, values in ndcg.items()
        },
        "agreement": {
            "test": {"kendall_tau": 0.5 + 0.1 * seed, "overlap@10": 0.75, "ndcg@10_vs_teacher": 0.9}
        },
        "comparisons": [],
        "gate": gate,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text("stage: all\n")
    with (folder / "per_query.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "num_docs", "num_relevant", *(f"{name}/ndcg@10" for name in ndcg)])
        writer.writerows(
            zip(
                query_ids,
                num_docs,
                num_relevant,
                *([("" if v is None else repr(v)) for v in values] for values in ndcg.values()),
                strict=True,
            )
        )
    return folder


def make_sweep(folder, *, topk=(5, 10, 50), temperature=(0.5, 1.0, 2.0), sample_size=(1, 8), seeds=(0, 1, 2)):
    """A sweep of plausible numbers: 200 queries, the student between baseline and teacher."""
    rng = np.random.default_rng(0)
    num_queries = 200
    docs = rng.integers(5, 300, num_queries).tolist()
    relevant = [0 if i % 25 == 0 else 1 + int(n * rng.uniform(0, 0.4)) for i, n in enumerate(docs)]
    level = rng.uniform(0.2, 0.7, num_queries)

    def values(mean, noise):
        drawn = np.clip(level + mean + noise * rng.standard_normal(num_queries), 0, 1)
        return [None if r == 0 else float(v) for v, r in zip(drawn, relevant, strict=True)]

    teacher = values(0.1, 0.05)
    baseline = {seed: values(0.0, 0.05) for seed in seeds}
    for k in topk:
        for t in temperature:
            for s in sample_size:
                mean = 0.06 - 0.01 * abs(np.log2(k / 10)) - 0.01 * abs(np.log2(t)) + 0.001 * s
                for seed in seeds:
                    make_run(
                        folder / f"topk={k},temperature={t},sample_size={s},seed={seed}",
                        {"teacher": teacher, "student": values(mean, 0.05), "baseline": baseline[seed]},
                        seed=seed,
                        vali=0.5 + mean,
                        options={"loss.topk": k, "loss.temperature": t, "loss.sample_size": s},
                        cost={
                            "teacher": (40000, rng.uniform(10, 12)),
                            "baseline": (28000, rng.uniform(1.2, 1.4)),
                            "student": (28000, rng.uniform(1.2, 1.4)),
                        },
                        command="rankdistil -m sweep=topk_temperature_sample_size seed=0,1,2",
                        num_docs=docs,
                        num_relevant=relevant,
                    )
