"""The whole of the official text-to-video run against ours, two experts of different weights, switch included."""

import contextlib
import math

import pytest
import torch
from tests_support import randomize_, rel_l2

from wan_models.config import DiTConfig
from wan_models.dit.base import WanModel
from wan_models.pipeline import text_to_video_latents

SIZES = {
    "dim": 48,
    "ffn_dim": 64,
    "freq_dim": 16,
    "text_dim": 24,
    "text_len": 12,
    "num_heads": 2,
    "num_layers": 2,
}


@pytest.mark.parametrize(("solver", "steps"), [("unipc", 12), ("dpm++", 9)])
@torch.no_grad()
def test_text_to_video_equals_official(official, seed, monkeypatch, solver, steps):
    from wan.modules.model import WanModel as OfficialModel
    from wan.text2video import WanT2V

    experts = [randomize_(OfficialModel(**SIZES), std=0.15).eval() for _ in range(2)]
    texts = {"a cat": torch.randn(5, 24), "blurry": torch.randn(9, 24)}

    run = object.__new__(WanT2V)
    run.lightning, run.t5_cpu, run.init_on_cpu, run.sp_size, run.rank = False, True, False, 1, 0
    run.device, run.param_dtype = torch.device("cpu"), torch.float32
    run.num_train_timesteps, run.boundary = 1000, 0.875
    run.patch_size, run.vae_stride, run.sample_neg_prompt = (1, 2, 2), (4, 8, 8), "unused"
    run.high_noise_model, run.low_noise_model = experts
    run.text_encoder = lambda prompts, device: [texts[prompts[0]]]

    class VAE:
        model = type("model", (), {"z_dim": 16})

        def decode(self, latents):
            return latents

    run.vae = VAE()
    monkeypatch.setattr(torch.amp, "autocast", lambda *a, **k: contextlib.nullcontext())
    settings = {"shift": 12.0, "sample_solver": solver, "sampling_steps": steps}
    reference = run.generate(
        "a cat",
        n_prompt="blurry",
        size=(112, 80),
        frame_num=9,
        seed=seed,
        guide_scale=(3.0, 4.0),
        offload_model=False,
        **settings,
    )

    high, low = (WanModel(DiTConfig(**SIZES), device="meta") for _ in range(2))
    for ours, official_expert in zip((high, low), experts, strict=True):
        ours.load_state_dict(official_expert.state_dict(), assign=True)
    noise = torch.randn(16, 3, 10, 14, generator=torch.Generator().manual_seed(seed))
    seen = []
    latents = text_to_video_latents(
        high,
        low,
        [texts["a cat"]],
        [texts["blurry"]],
        noise[None],
        steps=steps,
        solver=solver,
        on_step=lambda done, total: seen.append(done),
    )
    assert rel_l2(latents[0], reference) < 1e-4
    assert seen == list(range(1, steps + 1))
    assert math.isfinite(latents.abs().max())
    one_expert = text_to_video_latents(
        high, high, [texts["a cat"]], [texts["blurry"]], noise[None], steps=steps, solver=solver
    )
    assert rel_l2(one_expert[0], reference) > 1e-2  # the experts differ, so the test sees the switch
