"""What Animate-2-14B learns from is what its pipeline gives it."""

import random
from dataclasses import replace

import torch
from tests_support import rel_l2

from training import sizes
from training.animation import make_image_encoder
from training.driven import _draw, make_driven
from training.experts import TextRows, fresh
from training.language import make_tokenizer
from training.release import write_shared
from wan_models.models import build_network
from wan_models.pipelines.animate2 import DRIVING_PROMPT
from wan_models.pipelines.base import grid_of
from wan_models.random_weights import random_state_dict
from wan_models.text.encoder import TextEncoder
from wan_models.vae.wan21 import WanVAE21


def test_a_character_moves_as_somebody_else():
    for number in range(6):
        scene = _draw(random.Random(number))
        carried = int(scene.known[:, 0, 0].sum())
        assert carried in (0, 1)
        assert torch.equal(scene.given[:carried], scene.video[:carried])
        assert (scene.given[carried:] == 0.5).all()
        moving = [(video[1:] - video[:-1]).abs().amax(-1) > 0.1 for video in (scene.video, scene.driving)]
        either = moving[0] | moving[1]
        assert (moving[0] & moving[1]).sum() > 0.5 * either.sum()


@torch.no_grad()
def test_driven_clips_fit_the_model(tmp_path):
    """Padding that is counted gives what padding that is computed does, for the driving video's prompt too."""
    vae = build_network(sizes.VAE).to_empty(device="cpu")
    vae.load_state_dict(random_state_dict(lambda: WanVAE21(sizes.VAE), 1))
    write_shared(tmp_path / "vae.pth", vae, torch.float32)
    make_image_encoder(tmp_path / "clip.pth")
    batch = make_driven(tmp_path / "vae.pth", tmp_path / "clip.pth", range(2)).draw(
        2, torch.Generator().manual_seed(0)
    )
    tokenizer, size = make_tokenizer(tmp_path)
    t5 = build_network(sizes.text_encoder(size)).to_empty(device="cpu")
    t5.load_state_dict(random_state_dict(lambda: type(t5)(sizes.text_encoder(size)), 2))
    encoder = TextEncoder(t5, tokenizer)
    model = fresh(sizes.ANIMATE_2, 0)
    torch.nn.init.normal_(model.head.head.weight)
    captions, t = (
        ["A red figure dances.", "A figure waves before a blue background."],
        torch.full((2,), 500.0),
    )
    x = torch.cat([batch.latents, batch.y], dim=1)
    counted = TextRows(encoder, model.config.text_len).velocity(
        model, x, t, captions, batch.inputs, batch.image
    )
    driving = replace(batch.inputs, driving_text=encoder(DRIVING_PROMPT).expand(2, -1, -1))
    conditions = model.prepare(driving, grid_of(x))
    computed = model(
        x, t, torch.cat([encoder(one) for one in captions]), image=batch.image, conditions=conditions
    )
    # one value in 30,000 may be near zero and further off than its own size allows
    assert rel_l2(counted, computed) < 1e-5
