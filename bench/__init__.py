"""Timings beside the official code, diffusers and the host's own Wan, in one process (`make bench`)."""
