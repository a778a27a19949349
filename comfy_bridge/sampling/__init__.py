"""Samplers, guiders and the long videos that are made clip by clip."""
