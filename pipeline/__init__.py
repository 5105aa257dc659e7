"""Knowledge distillation for learning-to-rank: LETOR data, a teacher, a small student, NDCG."""

import os

# tensorflow-ranking and this package use legacy Keras 2 (tf_keras). TensorFlow reads this when it is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.1.0"
