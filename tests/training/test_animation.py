"""What Animate-14B learns from is what its pipeline gives it."""

import random

import pytest
import torch

from training import sizes
from training.animation import Moves, _draw, make_image_encoder, make_moves
from training.experts import fresh
from training.world.figures import Figure
from training.world.objects import BACKGROUNDS

SCENES = [_draw(random.Random(number)) for number in range(12)]


def test_replaced_characters_stand_in_the_driving_video():
    """What is given of it, outside the mask, is what is to come."""
    replaced = [scene for scene in SCENES if 0 < scene.known[-1].mean() < 1]
    assert 2 <= len(replaced) < len(SCENES)
    for scene in replaced:
        hidden = (scene.given == 0).all(dim=-1)
        assert 0.1 < hidden[-1].float().mean() < 0.8
        assert (scene.given - scene.video)[~hidden].abs().max() < 0.02


def test_other_clips_go_on_in_the_character_s_own_picture():
    for scene in SCENES:
        backgrounds = {scene.facts["background"]}
        if not 0 < scene.known[-1].mean() < 1:
            corner = scene.reference[0, 0, 0]
            assert torch.allclose(corner, torch.tensor(BACKGROUNDS[backgrounds.pop()]), atol=0.01)
            carried = int(scene.known[:, 0, 0].sum())
            assert carried in (0, 1, 5)
            assert torch.equal(scene.given[:carried], scene.video[:carried])
            assert (scene.given[carried:] == 0.5).all()


@pytest.mark.slow
@torch.no_grad()
def test_moves_fit_the_model(tmp_path, monkeypatch):
    from training.release import write_shared
    from wan_models.models import build_network
    from wan_models.random_weights import random_state_dict
    from wan_models.vae.wan21 import WanVAE21

    vae = build_network(sizes.VAE).to_empty(device="cpu")
    vae.load_state_dict(random_state_dict(lambda: WanVAE21(sizes.VAE), 1))
    write_shared(tmp_path / "vae.pth", vae, torch.float32)
    make_image_encoder(tmp_path / "clip.pth")
    moves = make_moves(tmp_path / "vae.pth", tmp_path / "clip.pth", range(2))
    assert isinstance(moves, Moves)
    batch = moves.draw(2, torch.Generator().manual_seed(0))
    model = fresh(sizes.ANIMATE, 0)
    conditions = model.prepare(batch.inputs, batch.latents.shape[2:])
    x = torch.cat([batch.latents, batch.y], dim=1)
    out = model(x, torch.full((2,), 500.0), torch.zeros(2, 4, 128), image=batch.image, conditions=conditions)
    assert out.shape == batch.latents.shape


def test_driving_and_character_move_alike():
    figure = Figure.draw(random.Random(3))
    other = Figure(
        dict(figure.facts, colour="red", background="white"), figure.centre, figure.size, figure.swings
    )
    assert torch.equal(figure.poses(3, 96, 96), other.poses(3, 96, 96))
