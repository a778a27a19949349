"""The layout that is chosen of measured processes, for models of real sizes."""

from dataclasses import replace

import pytest

from wan_models.config import DiTConfig
from wan_models.distributed.mesh import Layout
from wan_models.distributed.plan import Job, choose, predict
from wan_models.distributed.worker import Worker

GIB = 2**30
JOB = Job(DiTConfig(), 28 * 10**9, (2, 16, 21, 90, 160))  # T2V-A14B in bfloat16 at 720p, with guidance


def processes(count, free, bandwidth=200e9):
    return [{"flops": 5e14, "bandwidth": bandwidth, "free": free * GIB}] * count


@pytest.mark.parametrize(
    ("count", "free", "bandwidth", "layout"),
    [
        (1, 80, 200e9, Layout()),
        (2, 80, 200e9, Layout(cfg=2)),  # sends nothing
        (8, 80, 200e9, Layout(cfg=2, ulysses=4)),
        (2, 24, 200e9, Layout(cfg=2, fsdp=True)),  # weights do not fit whole
        (2, 14, 200e9, Layout(cfg=2, fsdp=True, offload=True)),  # nor do halves
    ],
)
def test_the_fastest_that_fits(count, free, bandwidth, layout):
    chosen, why = choose(count, JOB, processes(count, free, bandwidth))
    assert chosen == layout, why


def test_a_process_alone():
    """Which sends nothing, as its measurement says."""
    layout, why = choose(1, JOB, [Worker(0, 1, timeout=1.0).measure()])
    assert layout == Layout()
    assert "s per step predicted" in why and "between them" not in why


def test_without_guidance_tokens_are_shared():
    assert choose(2, replace(JOB, shape=(1, *JOB.shape[1:])), processes(2, 80))[0] == Layout(ulysses=2)


def test_the_smallest_where_nothing_fits():
    layout, why = choose(2, JOB, processes(2, 2))
    assert layout.fsdp and layout.offload and "nothing is sure to fit" in why


def test_memory_is_that_of_the_weights_and_of_a_forward():
    """About 5 GB a row at 720p, which more processes share until the whole sequence is what counts."""
    alone = predict(Layout(), 1, JOB, processes(1, 80))
    assert alone.bytes / 1e9 == pytest.approx(28 + 2 * 4.9, rel=0.03)
    shared = [predict(Layout(ulysses=n), n, JOB, processes(n, 80)).bytes / 1e9 - 28 for n in (2, 4, 8)]
    assert shared == pytest.approx([2 * 4.4, 2 * 2.4, 2 * 2.4], rel=0.05)


def test_more_bandwidth_is_never_slower():
    seconds = [
        predict(Layout(ulysses=4), 4, JOB, processes(4, 80, speed)).seconds for speed in (1e9, 1e10, 1e11)
    ]
    assert seconds == sorted(seconds, reverse=True)
