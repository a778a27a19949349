"""The whole pipeline of Animate-2 against diffusers', three clips; sizes and lengths."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange
from reference_animate2 import official_names, small_reference
from tests_support import on_meta, randomize_, rel_l2

from wan_models.checkpoints.keys import to_foreign
from wan_models.config import DISTILLED_BIAS, DiTConfig, DrivenConfig, VAEConfig
from wan_models.dit.animate2 import WanAnimate2Model
from wan_models.pipelines.animate2 import Animate2
from wan_models.pipelines.base import Models
from wan_models.random_weights import random_state_dict
from wan_models.sampling import schedule
from wan_models.sampling.solvers import solver_class
from wan_models.vae.wan21 import WanVAE21

SIZES = {
    "dim": 64, "ffn_dim": 96, "freq_dim": 32, "text_dim": 24, "text_len": 16, "num_heads": 4, "num_layers": 10,
    "in_dim": 36, "out_dim": 16,
}  # fmt: skip
WIDTH, HEIGHT, PER_CLIP, CLIPS, STEPS = 32, 48, 5, 3, 8
FRAMES = 1 + CLIPS * (PER_CLIP - 1)


class Scheduler:
    """Our solver under diffusers' calling convention."""

    def __init__(self, shift, solver):
        self.shift, self.solver = shift, solver

    def set_timesteps(self, steps, device=None):
        self.sigmas = schedule.sigmas(steps, self.shift, self.solver)
        self.timesteps = schedule.timesteps(steps, self.shift, self.solver).float()
        self.state, self.index = solver_class(self.solver)(self.sigmas), 0

    def step(self, velocity, t, x, **_):
        out = self.state.step(x, x - self.sigmas[self.index].item() * velocity, self.index)
        self.index += 1
        return (out,)


class Texts:
    """A text encoder that knows three prompts."""

    network = torch.nn.Identity()

    def __init__(self):
        self.rows = {prompt: torch.randn(1, rows, 24) for prompt, rows in (("a", 5), ("not", 7), ("how", 3))}

    def __call__(self, prompt):
        return self.rows[prompt]


class Seen(Animate2):
    """With CLIP features that are made of the mean colours of a picture."""

    def encode_image(self, picture):
        mean = picture.mean((0, 1, 2))
        return torch.sin(torch.arange(257 * 1280).float() * mean.sum()).view(1, 257, 1280)


def theirs(pipeline, transformer, cache_class, vae, picture, driving, settings):
    """The frames [T, H, W, 3] in -1..1 that diffusers' blocks make, of all clips."""
    from diffusers.guiders import ClassifierFreeGuidance
    from diffusers.modular_pipelines.modular_pipeline import PipelineState
    from diffusers.modular_pipelines.wan_animate_2 import before_denoise, denoise, encoders

    texts = pipeline.models.text_encoder
    components = SimpleNamespace(
        _execution_device=torch.device("cpu"), vae=vae, transformer=transformer, num_channels_latents=16,
        vae_scale_factor_spatial=8, vae_scale_factor_temporal=4,
        scheduler=Scheduler(settings.shift, settings.solver),
        guider=ClassifierFreeGuidance(guidance_scale=settings.guidance[0]),
    )  # fmt: skip
    state = PipelineState()
    pixels = rearrange(driving, "t h w c -> 1 c t h w") * 2 - 1
    values = {
        "image_pixels": rearrange(picture, "1 h w c -> 1 c h w") * 2 - 1,
        "driving_video_pixels": pixels, "segment_frame_length": PER_CLIP, "prev_segment_conditioning_frames": 1,
        "num_segments": CLIPS, "effective_segment": PER_CLIP - 1, "num_inference_steps": settings.steps,
        "height": HEIGHT, "width": WIDTH, "generator": torch.Generator().manual_seed(settings.seed),
        "prompt_embeds": texts("a"), "negative_prompt_embeds": texts("not"), "prompt_ref_embeds": texts("how"),
        "output_type": "pt",
    }  # fmt: skip
    for name, value in values.items():
        state.set(name, value)
    features = pipeline.encode_image(picture)
    state.set("encoder_hidden_states_image", features, "denoiser_input_fields")

    class Conditioned(denoise.WanAnimate2RefExtractStep):
        """The official code sees the first frame of each clip, diffusers that of the whole video."""

        def __call__(self, components, block_state, k):
            first = driving[k * (PER_CLIP - 1)][None]
            block_state.condition_clip_context = pipeline.encode_image(first)
            return super().__call__(components, block_state, k)

    class Loop(denoise.WanAnimate2DenoiseStep):
        block_classes = [
            Conditioned if block is denoise.WanAnimate2RefExtractStep else block
            for block in denoise.WanAnimate2DenoiseStep.block_classes
        ]

    state.set("condition_clip_context", pipeline.encode_image(driving[:1]))
    for block in (
        encoders.WanAnimate2ImageVaeEncoderStep(), before_denoise.WanAnimate2PrepareSegmentsStep(), Loop(),
    ):  # fmt: skip
        _, state = block(components, state)
    return rearrange(torch.cat(state.get("segment_frames"), dim=2), "1 c t h w -> t h w c")


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (3.0, 0.0), (1.0, DISTILLED_BIAS)])
def test_equals_diffusers(seed, monkeypatch, scale, bias):
    from diffusers import AutoencoderKLWan

    transformer, cache_class = small_reference(monkeypatch, bias=bias, **SIZES)
    cells = WIDTH * HEIGHT // 256
    transformer.attention.first = slice(cells, 2 * cells)
    randomize_(transformer, std=0.15)
    dit = on_meta(WanAnimate2Model, DiTConfig("animate2", image_dim=1280, driven=DrivenConfig(bias), **SIZES))
    dit.load_state_dict(official_names(transformer), assign=True)
    config = VAEConfig(base_dim=8)
    state = random_state_dict(lambda: WanVAE21(config), seed % 1000)
    vae, reference_vae = WanVAE21(config), AutoencoderKLWan(base_dim=8, z_dim=16)
    vae.load_state_dict(state)
    names = to_foreign("diffusers VAE 2.1", state)
    shapes = reference_vae.state_dict()
    reference_vae.load_state_dict({names[k]: v.reshape(shapes[names[k]].shape) for k, v in state.items()})
    pipeline = Seen(Models(dit.eval(), vae.eval(), Texts()))
    settings = replace(
        pipeline.settings,
        width=WIDTH,
        height=HEIGHT,
        steps=STEPS,
        guidance=(scale, scale),
        frames=PER_CLIP,
        seed=seed,
        negative_prompt="not",
    )
    inputs = torch.rand(1, HEIGHT, WIDTH, 3), torch.rand(FRAMES, HEIGHT, WIDTH, 3)
    found = pipeline("a", *inputs, settings, driving_prompt="how") * 2 - 1
    expected = theirs(pipeline, transformer, cache_class, reference_vae.eval(), *inputs, settings)
    assert found.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert rel_l2(found, expected) < 1e-4
