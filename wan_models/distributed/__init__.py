"""Several GPUs: one transformer, text encoder or VAE decode, worked on by a group of processes."""
