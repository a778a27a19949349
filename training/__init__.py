"""Miniatures of the Wan2.2 releases, trained from nothing on a small drawn world: `make train`."""
