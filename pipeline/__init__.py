"""Knowledge distillation for learning-to-rank: LETOR data, a teacher, a small student, NDCG."""

import os

# tensorflow-ranking and this package use legacy Keras 2 (tf_keras); TensorFlow reads this when it is imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow else takes all of a GPU's memory as it starts, and a sweep's next trial finds none.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# LightGBM's threads else wait for each other in a loop, which takes several times as long where another process wants
# a core; OpenMP reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# XLA else fills half of an AVX-512 register, which costs the losses a tenth of their time and more; XLA reads this as
# it compiles for the first time.
_flags = os.environ.get("XLA_FLAGS", "").strip()
if "xla_cpu_prefer_vector_width" not in _flags and (
    not _flags or _flags.startswith("-")
):  # else it names a file
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_cpu_prefer_vector_width=512".strip()

__version__ = "0.1.0"
