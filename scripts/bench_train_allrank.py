"""allRank for `bench.py train`: its `fit` as shipped, or its loop with ListMLE alone; one line of JSON."""

from __future__ import annotations

import functools
import logging
import sys
import tempfile
import types

import bench_workload as workload

mode, threads, epochs, checkout = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
workload.limit_threads(threads)
sys.path.insert(0, checkout)

import numpy as np  # noqa: E402  (after the limit of threads)
import torch  # noqa: E402  (after the limit of threads)

# allRank takes a composition of functions from torchvision, whose releases fit one torch each.
vision, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
transforms.Compose = lambda steps: lambda x: functools.reduce(lambda value, f: f(value), steps, x)  # type: ignore[attr-defined]  # a stand-in
vision.transforms = transforms  # type: ignore[attr-defined]  # a stand-in
sys.modules |= {"torchvision": vision, "torchvision.transforms": transforms}

from allrank.data import dataset_loading  # noqa: E402  (after the limit of threads)
from allrank.models.losses import listMLE  # noqa: E402  (after the limit of threads)
from allrank.models.model import make_model  # noqa: E402  (after the limit of threads)
from allrank.training import train_utils  # noqa: E402  (after the limit of threads)

logging.disable(logging.CRITICAL)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.set_num_threads(threads)
torch.manual_seed(0)
np.random.seed(0)  # noqa: NPY002  (allRank draws from it)
work = workload.reference()
sizes = np.diff(work.offsets)
queries = np.repeat(np.arange(len(sizes)), sizes)
cut = transforms.Compose([dataset_loading.FixLength(workload.CUT), dataset_loading.ToTensor()])  # type: ignore[attr-defined]  # a stand-in


def dataset(num_lists: int, transform: object) -> dataset_loading.LibSVMDataset:
    rows = slice(0, work.offsets[num_lists])
    dense = types.SimpleNamespace(
        toarray=lambda: work.features[rows].astype(np.float64)
    )  # as it reads a file
    # fit computes NDCG, whose gain 2^y wants labels; ListMLE takes either.
    target = work.labels if mode == "fit" else work.teacher - work.teacher.min() + 1e-3
    return dataset_loading.LibSVMDataset(dense, target[rows].astype(np.float64), queries[rows], transform)


train, vali = dataset(len(sizes), cut), dataset(20, cut)
train_batches, vali_batches = dataset_loading.create_data_loaders(
    train, vali, num_workers=0, batch_size=workload.LISTS_PER_STEP
)
model = make_model(
    fc_model={"sizes": list(workload.HIDDEN), "input_norm": False, "activation": "ReLU", "dropout": 0.0},
    transformer=None,
    post_model={"d_output": 1, "output_activation": None},
    n_features=workload.NUM_FEATURES,
).to(device)
optimizer = torch.optim.Adam(model.parameters(), workload.LEARNING_RATE)
num_docs = int(np.minimum(sizes, workload.CUT).sum())
meters = []
if mode == "fit":
    config = types.SimpleNamespace(metrics={"ndcg": [1, 5, 10]}, val_metric="ndcg_10")
    for _ in range(epochs):
        with workload.Meter() as meter, tempfile.TemporaryDirectory() as folder:
            train_utils.fit(1, model, listMLE, optimizer, None, train_batches, vali_batches, config, None, 1000,
                            device, folder, folder)  # fmt: skip
        meters.append(meter)
else:
    batches = [[tensor.to(device) for tensor in batch] for batch in train_batches]
    model.train()
    for _ in range(epochs):
        with workload.Meter() as meter:
            for x, y, indices in batches:
                train_utils.loss_batch(model, listMLE, x, y, indices, None, optimizer)
        meters.append(meter)
workload.print_rates(num_docs, meters)
