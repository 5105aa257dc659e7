"""Keras fit under tf.distribute, checkpoints and TensorBoard."""
