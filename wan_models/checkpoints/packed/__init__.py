"""Weights that are stored packed: quantised in one of several formats, one file each."""
