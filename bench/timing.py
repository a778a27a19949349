"""Fair timing in one process: contestants take turns forwards and backwards, medians are compared."""

import statistics
import time


def interleaved(contestants, rounds):
    """Median seconds of each callable by name; A B C C B A ..., after one warm-up each."""
    for run in contestants.values():
        run()
    times = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in list(contestants)[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def rel_l2(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())
