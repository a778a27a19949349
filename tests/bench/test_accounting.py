"""What networks cost at real sizes does not grow. `python -m bench.accounting --write` keeps new numbers."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from bench.accounting import IN_BANDS, MODELS, NUMBERS, PAGE, SIZES, VAES, cases, count, ours, transformer
from bench.counting import Counter, empty
from wan_models.memory import activation_bytes
from wan_models.models import build_network

pytestmark = pytest.mark.long

KEPT = json.loads(NUMBERS.read_text())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_no_number_of_ours_grows(case):
    grown = {name: value for name, value in asdict(ours(case)).items() if value > KEPT[case.name][name]}
    assert not grown, f"was {KEPT[case.name]}"


def test_the_page_has_the_numbers_that_are_kept():
    page = PAGE.read_text()
    assert KEPT.keys() == {case.name for case in cases()}
    for name, cost in KEPT.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.split("|")]
        flops, moved, peak = cells[2], cells[3], cells[6]
        assert flops == f"{cost['flops'] / 1e15:.3f}"
        assert (moved, peak) == (f"{cost['moved'] / 1e9:,.0f}", f"{cost['peak'] / 1e9:.2f}")


def test_operations_are_counted_as_kernels():
    a, w = empty(3, 40), empty(50, 40)
    with torch.inference_mode(), Counter() as counter:
        b = F.linear(a, w)
        b.add_(1).relu_()
        c = b.view(5, 30)[:2] * 2
        del b
        c = c.float()
    cost = counter.cost
    assert cost.flops == 2 * 3 * 40 * 50
    product, in_place, view = 2 * (3 * 40 + 50 * 40 + 3 * 50), 2 * (2 * 150 * 2), 2 * 2 * 60
    assert cost.moved == product + in_place + view + (2 + 4) * 60
    assert cost.peak == 2 * 150 + 2 * 60
    assert counter.live == 4 * 60


def test_convolutions_and_attention():
    x, w = empty(1, 4, 3, 8, 8), empty(6, 4, 3, 3, 3)
    q, k = empty(1, 2, 10, 16), empty(1, 2, 20, 16)
    with torch.inference_mode(), Counter() as counter:
        out = F.conv3d(x, w, padding=(0, 1, 1))
        assert counter.cost.flops == 2 * out.numel() * 4 * 27
        before = counter.cost.flops
        F.scaled_dot_product_attention(q, k, k)
        assert counter.cost.flops - before == 2 * 2 * (2 * 10 * 20 * 16)


def test_a_convolution_copies_what_is_not_contiguous():
    x, w = empty(1, 4, 6, 8, 8)[:, :, 1:4], empty(6, 4, 3, 3, 3)
    with torch.inference_mode(), Counter() as counter:
        out = F.conv3d(x, w)
    copy = 2 * x.numel()
    assert counter.cost.peak == 2 * out.numel() + copy
    assert counter.cost.moved == 2 * (x.numel() + w.numel() + out.numel()) + 2 * copy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "case", [case for case in cases() if case.task == "forward"], ids=lambda case: case.name
)
def test_estimates_are_a_little_above_what_is_counted(case, dtype):
    config = MODELS[case.network]
    counted = transformer(case.network, case.latent, dtype, is_first=True)["forward"].peak
    assert 1 <= activation_bytes(config, (1, config.in_dim, *case.latent), dtype) / counted <= 1.1


class Processes:
    """A group of which this process is the first, and the others are not there."""

    def __init__(self, size):
        self.size, self.rank = (lambda: size), (lambda: 0)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize(
    "case", [case for case in cases() if case.task == "forward"], ids=lambda case: case.name
)
def test_estimates_where_processes_share_the_tokens(case, size, monkeypatch):
    for name in ("all_to_all_single", "all_gather_into_tensor"):
        monkeypatch.setattr(dist, name, lambda *_args, **_more: None)
    config = MODELS[case.network]
    counted = max(
        transformer(case.network, case.latent, processes=Processes(size), is_first=is_first)["forward"].peak
        for is_first in ((True, False) if config.driven else (True,))  # the steps of others are alike
    )
    estimate = activation_bytes(config, (1, config.in_dim, *case.latent), torch.bfloat16, size)
    assert 1 <= estimate / counted <= 1.1


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.network in VAES], ids=lambda case: case.name
)
def test_estimates_of_autoencoders(case):
    height, width, frames = SIZES[case.size]
    vae = build_network(VAES[case.network])
    if case.task == IN_BANDS:
        estimate = vae.peak_bytes_in_bands(frames, height, width, 2, 2)
    else:
        estimate = vae.peak_bytes(case.task, frames, height * width, 2)
    assert 1 <= estimate / ours(case).peak <= 1.1


@pytest.mark.parametrize("size", [(352, 640, 33), (256, 256, 17), (64, 128, 1)])
@pytest.mark.parametrize("name", VAES)
def test_estimates_of_small_videos_are_bounds(name, size):
    height, width, frames = size
    vae = build_network(VAES[name], dtype=torch.bfloat16)
    _, space, _ = vae.config.stride
    latents = empty(1, vae.config.z_dim, (frames + 3) // 4, height // space, width // space)
    for task, run in (
        ("decode", lambda: vae.decode(latents)),
        ("encode", lambda: vae.encode(empty(1, 3, frames, height, width))),
    ):
        assert vae.peak_bytes(task, frames, height * width, 2) >= count(run).peak
    in_bands = count(lambda: vae.decode_in_bands(latents, 2))
    assert vae.peak_bytes_in_bands(frames, height, width, 2, 2) >= in_bands.peak


@pytest.mark.parametrize("case", [c for c in cases() if c.is_fused], ids=lambda case: case.name)
def test_fused_passes_move_less_and_hold_no_more(case):
    fused, plain = KEPT[case.name], KEPT[replace(case, is_fused=False).name]
    assert fused["moved"] < 0.8 * plain["moved"]
    assert fused["peak"] <= plain["peak"]
    assert fused["flops"] == plain["flops"]


def test_a_block_at_720p_moves_what_was_aimed_at():
    assert KEPT["T2V-A14B block 720p, fused"]["moved"] <= 60e9


def test_a_function_is_counted_as_one_kernel():
    a, norm = empty(3, 40), torch.nn.RMSNorm(40, device="meta", dtype=torch.bfloat16)
    with torch.inference_mode(), Counter() as counter:
        out = counter.as_one(lambda x, norm: norm(x.float()).mul_(2).float())(a, norm)
    assert counter.cost.moved == 2 * (3 * 40 + 40) + 4 * 3 * 40
    assert counter.cost.peak == counter.live == out.nbytes
