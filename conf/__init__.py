"""The Hydra configuration tree, shipped as pipeline.conf (Hydra looks for this file)."""
