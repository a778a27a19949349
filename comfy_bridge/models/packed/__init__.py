"""Layers for packed weights, of ours or the host's, and how patches meet them."""
