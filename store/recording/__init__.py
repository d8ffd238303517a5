"""From a training step to the disk."""
