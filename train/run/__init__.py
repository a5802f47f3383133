"""One training run: trainer, checkpoints, model card, upload."""
