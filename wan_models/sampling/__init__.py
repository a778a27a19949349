"""Noise schedules, solvers and guidance: pure functions and small states over sigmas."""
