"""The bench for a card, tried on the CPU."""

import torch

from bench import gpu, gpu_job

JOB = gpu_job.Job("ours", "bf16", "sdpa", blocks=2, rounds=2, is_tiny=True, folder="", comfyui="")


def test_a_line_of_the_table():
    seen = gpu_job.measure(JOB)["sizes"]["tiny"]
    tokens = 3 * 8 * 12 // 4
    dim, ffn, text = 256, 512, 64
    products = 2 * tokens * dim * (6 * dim + 2 * ffn) + 2 * text * dim * 2 * dim
    floor = 2 * products + 2 * text * dim * (4096 + dim)  # two blocks, and the embedding of the text
    assert seen["seconds"] > 0
    assert floor < seen["flops"] < 1.5 * floor
    if not torch.cuda.is_available():
        assert seen["peak"] == 0
    (_, row) = gpu.rows_of(
        [{"job": vars(JOB), "sizes": {"tiny": seen}}], product=seen["flops"] / seen["seconds"]
    )
    assert row[:4] == ["ours", "bf16", "sdpa", "tiny"] and row[7] == "100%"
    assert float(row[4]) == round(seen["seconds"] / 2 * 1e3, 2)


def test_what_cannot_be_measured_says_why():
    seen = gpu.run(gpu_job.Job("ours", "bf16", "flash9", 2, 2, True, "", ""))
    (_, row) = gpu.rows_of([{"job": vars(JOB), **seen}], product=1.0)
    assert "unknown attention 'flash9'" in row[4]


def test_every_format_is_one_that_can_be_written():
    assert set(gpu.FORMATS) - {"bf16"} <= set(gpu_job.PACKERS)
