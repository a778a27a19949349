"""The loop and what it is made of: resumed trainings go the same way, and what is left out changes nothing."""

import pytest
import torch
from torch import nn

from training.autoencoder import PREVIEW, encode, reconstruct, standardize
from training.distill import LowRank, _levels, _substeps, add_low_rank, journeys, write_lora
from training.experts import NoiseRange, TextRows, begun_as, fresh
from training.loop import Schedule, train
from training.muon import Muon, orthogonalized
from training.tiny_tokenizer import write_tokenizer
from wan_models.checkpoints.lora import match
from wan_models.checkpoints.patches import Patch, patched
from wan_models.checkpoints.reader import open_checkpoint
from wan_models.config import DiTConfig, T5Config, VAEConfig
from wan_models.families import RELEASES
from wan_models.models import build_network
from wan_models.random_weights import random_state_dict
from wan_models.text.encoder import TextEncoder
from wan_models.text.tokenizer import WanTokenizer
from wan_models.text.umt5 import UMT5Encoder
from wan_models.vae.wan21 import WanVAE21

SMALL = DiTConfig(dim=64, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_len=64)


def module():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def loss_of(network):
    def loss(generator):
        x = torch.randn(16, 4, generator=generator)
        return (network(x).squeeze(1) - x.sum(dim=1)).pow(2).mean()

    return loss


@pytest.mark.slow
def test_resumed_training_is_the_same_training(tmp_path, monkeypatch):
    schedule = Schedule(60, rate=1e-2, matrix_rate=0.02)
    whole = module()
    train("a", whole, loss_of(whole), schedule, tmp_path / "whole")

    class StoppedError(Exception):
        pass

    stopped, calls = module(), []

    def until(generator):
        calls.append(1)
        if len(calls) == 34:  # the last steps before the stop are saved one by one: each draws a picture
            monkeypatch.setattr("training.loop._SAVE_SECONDS", -1.0)
        if len(calls) == 37:
            raise StoppedError
        return loss_of(stopped)(generator)

    with pytest.raises(StoppedError):
        train("a", stopped, until, schedule, tmp_path / "parts")
    monkeypatch.undo()
    resumed = module()
    train("a", resumed, loss_of(resumed), schedule, tmp_path / "parts")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    again = module()
    train("a", again, lambda generator: pytest.fail("it is done"), schedule, tmp_path / "parts")
    assert torch.equal(next(again.parameters()), next(whole.parameters()))
    lines = (tmp_path / "whole" / "a" / "loss.csv").read_text().splitlines()
    losses = [float(line.split(",")[1]) for line in lines[1:]]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert (tmp_path / "whole" / "a" / "loss.png").stat().st_size > 1000


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    network = module()
    with pytest.raises(ArithmeticError, match="broken"):
        train(
            "broken",
            network,
            lambda generator: loss_of(network)(generator) * float("nan"),
            Schedule(5),
            tmp_path,
        )


def test_muon_steps_are_orthogonal():
    values = torch.linalg.svdvals(orthogonalized(torch.randn(24, 60)))
    assert values.min() > 0.6 and values.max() < 1.3
    kernel = nn.Parameter(torch.zeros(8, 4, 3, 3))
    kernel.grad = torch.randn(8, 4, 3, 3)
    Muon([kernel], lr=0.1).step()
    values = torch.linalg.svdvals(kernel.detach().flatten(1))
    assert values.min() > 0.06 and values.max() < 0.13


def test_noise_levels_are_those_of_the_schedule():
    high, low = NoiseRange.of_experts(RELEASES["T2V-A14B"])
    generator = torch.Generator().manual_seed(0)
    drawn = high.draw(500, generator)
    assert drawn.min() >= 0.875 - 1e-6 and drawn.max() <= 1
    assert low.draw(500, generator).max() <= 0.875 + 1e-6
    # shift 12: noise level 0.9231 is in the middle of uniform time
    whole = NoiseRange(0.0, 1.0, 12.0).draw(4001, generator)
    assert whole.median() == pytest.approx(12 * 0.5 / (1 + 11 * 0.5), abs=2e-3)


@pytest.fixture
def encoder(tmp_path):
    count = write_tokenizer(tmp_path / "tokenizer")
    config = T5Config(
        vocab_size=count, dim=24, dim_attn=16, dim_ffn=32, num_heads=2, num_layers=2, text_len=64
    )
    network = build_network(config).to_empty(device="cpu")
    network.load_state_dict(random_state_dict(lambda: UMT5Encoder(config), 1))
    return TextEncoder(network, WanTokenizer.from_folder(tmp_path / "tokenizer", text_len=64))


def random_model(config=SMALL):
    model = build_network(config).to_empty(device="cpu")
    model.load_state_dict(random_state_dict(lambda: type(model)(config), 2))
    return model


@torch.no_grad()
def test_counted_padding_equals_padding(encoder):
    model = random_model()
    captions = ["a cat", "two people walk by the river in the golden evening light"]
    x, t = torch.randn(2, 16, 3, 4, 6), torch.tensor([900.0, 300.0])
    whole = model(x, t, torch.cat([encoder(text) for text in captions]))
    rows = TextRows(encoder, 64)
    context = rows(captions)
    assert context.shape[1] < 40
    model.config = DiTConfig(**{**vars(SMALL), "text_len": context.shape[1]})
    torch.testing.assert_close(model(x, t, context, attention=rows.attention), whole, rtol=1e-4, atol=1e-5)
    assert (model(x, t, context) - whole).abs().max() > 1e-3  # counting matters


@torch.no_grad()
def test_a_model_begins_as_another_one():
    start = random_model()
    config = DiTConfig(**{**vars(SMALL), "in_dim": 36, "family": "i2v"})
    wide = begun_as(start, config, 0)
    x, t, context = torch.randn(1, 16, 3, 4, 6), torch.tensor([500.0]), torch.randn(1, 7, 24)
    given = torch.cat([x, torch.randn(1, 20, 3, 4, 6)], dim=1)
    torch.testing.assert_close(wide(given, t, context), start(x, t, context))
    assert fresh(SMALL, 0)(x, t, context).abs().max() == 0


@torch.no_grad()
def test_standardized_latents_have_the_colours_of_the_preview():
    config = VAEConfig(base_dim=4)
    vae = build_network(config).to_empty(device="cpu")
    vae.load_state_dict(random_state_dict(lambda: WanVAE21(config), 1))
    videos = torch.randint(0, 256, (4, 5, 4, 4, 3), dtype=torch.uint8)
    videos = videos.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    true = torch.cat([videos[:, :1].float(), videos[:, 1:].float().mean(dim=1, keepdim=True)], dim=1)
    true = (true[:, :, ::8, ::8] / 127.5 - 1).flatten(0, 3)

    def latents():
        return vae.statistics.normalize(encode(vae, videos)).movedim(1, -1).flatten(0, 3)

    z, decoded = latents(), reconstruct(vae, encode(vae, videos))
    best = torch.linalg.lstsq(z - z.mean(dim=0), true - true.mean(dim=0)).solution
    standardize(vae, videos)
    changed = latents()
    assert changed.mean(dim=0).abs().max() < 1e-3
    preview = changed @ torch.tensor(PREVIEW["2.1"])
    torch.testing.assert_close(preview, (z - z.mean(dim=0)) @ best, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(reconstruct(vae, encode(vae, videos)), decoded, rtol=1e-3, atol=1e-3)


def test_journeys_stop_at_the_noise_levels_of_the_four_steps(encoder, monkeypatch):
    monkeypatch.setattr("training.distill._SUBSTEPS", 2)
    monkeypatch.setattr("training.distill.NEGATIVE_PROMPT", "rain")  # the real one has over 64 tokens
    experts = random_model(), random_model()
    stops = journeys(experts, encoder, ["a cat"])
    assert stops.shape == (1, 5, 16, 5, 12, 12) and torch.isfinite(stops).all()
    first, last = _substeps(1.0, 0.9375, 12.0)
    assert first[0] == 1.0 and last[1] == pytest.approx(0.9375, abs=1e-6) and first[1] == last[0]
    assert _levels() == pytest.approx([1.0, 0.9375, 0.8333, 0.625, 0.0], abs=1e-4)


@torch.no_grad()
def test_a_written_lora_is_what_was_trained(tmp_path):
    model = random_model()
    plain = {
        name: module.weight.clone() for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    added = add_low_rank(model)
    assert all(isinstance(part, LowRank) for part in added.values()) and "blocks.1.ffn.2" in added
    for part in added.values():
        part.up.normal_()
    write_lora(added, tmp_path / "lora.safetensors")
    file = open_checkpoint(tmp_path / "lora.safetensors")
    found = match(
        file.shapes, {name: tuple(p.shape) for name, p in random_model().named_parameters()}, "high"
    )
    assert not (found.unmatched or found.misfits or found.faults)
    for name, part in added.items():
        pieces = {
            kind.removeprefix("lora_").removesuffix(".weight"): file[f"diffusion_model.{name}.{kind}"]
            for kind in ("lora_up.weight", "lora_down.weight", "alpha")
        }
        changed = patched(plain[name], [Patch("lora", 1.0, 1.0, pieces | {"alpha": float(pieces["alpha"])})])
        torch.testing.assert_close(changed, part(plain[name]), rtol=1e-2, atol=1e-2)
        assert (changed - plain[name]).abs().max() > 0.1
