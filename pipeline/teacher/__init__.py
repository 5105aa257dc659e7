"""Teachers, and the step from their raw scores to the loss."""
