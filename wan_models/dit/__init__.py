"""The diffusion transformers."""
