"""tensorflow-ranking's losses on labels, through `tfr.keras.losses` with its default options: `tfr_softmax` and so on.

Each is `tfr.keras.losses.get(key + "_loss")`, called with label -1 in the padding, as tfr wants it. Of each list it
gives what tfr with reduction "sum" gives of that list alone, without padding (a sum over documents or pairs, where
tfr's default is a mean that counts padding). What that takes:

- Scores are given less the list's worst one: in the padding tfr puts a score of log(1e-10), which would outweigh a list
  of low scores. Not to `mean_squared` and `sigmoid_cross_entropy`, which are no functions of differences.
- Noise is a function of (seed, list id, sample, slot); tfr's comes from a stateful generator, which neither a resumed
  run nor other replicas repeat. `list_mle` gets the documents in an order by label whose ties are drawn here;
  `gumbel_approx_ndcg` and `yeti_logistic`, a mean over 8 samples, get scores with Gumbel noise from here.
- What padding adds is taken out: log(p!) for p slots in `list_mle`; `yeti_logistic` multiplies by the size of the list
  with its padding.

The rest stays as it is in tfr: it computes in float32; `sigmoid_cross_entropy` is for labels 0 and 1, and has no
minimum for larger ones; `pairwise_logistic` has no gradient between equal scores; `list_mle` is not finite where a list
beside padding has scores more than 60 apart; `list_mle`, `mean_squared`, `pairwise_mse` and `sigmoid_cross_entropy`
learn from lists without relevant documents, too. Left out: `ordinal`, click EM and mixture EM take several scores a
document, `coupled_rankdistil` is for teachers (`loss.estimator=tfr`).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from pipeline.losses.labels import drawn_order
from pipeline.losses.lists import Tensor, as_lists, reduce_lists, take
from pipeline.losses.tfr_compat import load_tfr
from pipeline.noise import exponential, random_bits

# Of tfr.keras.losses.RankingLossKey, less "_loss"; written out, since tfr is imported when one is asked for.
KEYS = (
    "approx_mrr",
    "approx_ndcg",
    "gumbel_approx_ndcg",
    "list_mle",
    "mean_squared",
    "pairwise_hinge",
    "pairwise_logistic",
    "pairwise_mse",
    "pairwise_soft_zero_one",
    "sigmoid_cross_entropy",
    "softmax",
    "unique_softmax",
    "yeti_logistic",
)
_OF_SCORES = ("mean_squared", "sigmoid_cross_entropy")  # not of their differences
_SAMPLED = ("gumbel_approx_ndcg", "yeti_logistic")
_SAMPLE_SIZE = 8  # tfr's default


def tfr_loss(
    key: str,
    labels: Any,
    student: Any,
    mask: Any = None,
    *,
    seed: Any = (0, 0),
    list_ids: Any = None,
    reduce: str | None = "mean",
) -> Tensor:
    """The loss `key` of tfr, with `labels` >= 0 and `student` [lists, list_size]; the others as in `labels.softmax`.

    Raises:
      RuntimeError: as `load_tfr`.
    """
    tfr = load_tfr()
    labels, student, mask = as_lists(labels, student, mask, is_label=True)
    all_docs, dtype = mask, student.dtype
    labels, student = tf.cast(labels, tf.float32), tf.cast(student, tf.float32)
    num_lists, size = tf.unstack(tf.shape(mask))
    call = loss = tfr.keras.losses.get(f"{key}_loss", reduction="none")
    num_samples = 1
    if key == "list_mle":
        order = drawn_order(labels, mask, seed, list_ids)
        student, mask = take(student, order), take(mask, order)
        labels = tf.broadcast_to(tf.cast(tf.range(size, 0, -1), tf.float32), [num_lists, size])
    elif key in _SAMPLED:
        num_samples = _SAMPLE_SIZE
        list_ids = tf.range(num_lists) if list_ids is None else list_ids
        bits = random_bits(seed, list_ids, tf.range(num_samples), tf.range(size))
        noise = -tf.math.log(exponential(bits, tf.float32))
        labels, student, mask = (tf.repeat(x, num_samples, axis=0) for x in (labels, student, mask))
        student += tf.reshape(noise, tf.shape(student))
        call = super(type(loss), loss).__call__  # which these two call with their own noise
    if key not in _OF_SCORES:
        worst = tf.reduce_min(tf.where(mask, student, student.dtype.max), axis=1, keepdims=True)
        student -= tf.stop_gradient(worst)
    values = call(tf.where(mask, labels, -1.0), tf.where(mask, student, 0.0))
    per_list = tf.reduce_sum(tf.reshape(values, [num_lists, -1]), axis=1) / num_samples
    num_docs = tf.reduce_sum(tf.cast(all_docs, tf.float32), axis=1)
    if key == "list_mle":
        per_list -= tf.math.lgamma(tf.cast(size, tf.float32) - num_docs + 1.0)
    elif key == "yeti_logistic":
        per_list *= num_docs / tf.cast(size, tf.float32)
    return reduce_lists(tf.cast(per_list, dtype), all_docs, reduce)
