"""Rax and Optax on JAX for `bench.py train`: a compiled step on padded lists in memory; one line of JSON."""

from __future__ import annotations

import os
import sys

import bench_workload as workload

mode, threads, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
workload.limit_threads(threads)
if threads == 1:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax  # noqa: E402  (after the limit of threads)
import jax.numpy as jnp  # noqa: E402  (after the limit of threads)
import numpy as np  # noqa: E402  (after the limit of threads)
import optax  # noqa: E402  (after the limit of threads)
import rax  # noqa: E402  (after the limit of threads)

dims = (workload.NUM_FEATURES, *workload.HIDDEN, 1)
keys = jax.random.split(jax.random.PRNGKey(0), len(dims))
parameters = [
    (jax.random.normal(key, (a, b)) * np.sqrt(2 / a), jnp.zeros(b))
    for key, a, b in zip(keys[1:], dims[:-1], dims[1:], strict=True)
]
optimizer = optax.adam(workload.LEARNING_RATE)
state = optimizer.init(parameters)


def loss(parameters, x, teacher, mask, key):
    for number, (weights, bias) in enumerate(parameters):
        x = x @ weights + bias
        if number < len(parameters) - 1:
            x = jax.nn.relu(x)
    scores = x[..., 0]
    if mode == "softmax":
        target = jax.nn.softmax(jnp.where(mask, teacher, -1e9))
        return rax.softmax_loss(scores, target, where=mask, reduce_fn=jnp.mean)
    noise = jax.random.gumbel(key, (workload.SAMPLE_SIZE, *teacher.shape))  # draws of the teacher
    return jnp.mean(
        jax.vmap(lambda g: rax.listmle_loss(scores, teacher + g, where=mask, reduce_fn=jnp.mean))(noise)
    )


@jax.jit
def step(parameters, state, *batch):
    gradients = jax.grad(loss)(parameters, *batch)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(parameters, updates), state


work = workload.reference()
num_lists = (len(work.offsets) - 1) // workload.LISTS_PER_STEP * workload.LISTS_PER_STEP
features, teacher, mask = work.padded(num_lists)
meters = []
for _ in range(epochs):
    with workload.Meter() as meter:
        for i in range(0, num_lists, workload.LISTS_PER_STEP):
            part = slice(i, i + workload.LISTS_PER_STEP)
            keys = jax.random.split(keys[0])
            parameters, state = step(parameters, state, features[part], teacher[part], mask[part], keys[1])
        jax.block_until_ready(parameters)
    meters.append(meter)
workload.print_rates(int(mask.sum()), meters)
