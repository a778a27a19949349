"""Models whose work is done by several GPUs."""
