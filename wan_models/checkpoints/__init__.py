"""Reading checkpoints: files as one mapping, what they hold, and loading them into a model."""
