"""The CLIP image tower against the official one and transformers', from both kinds of file."""

import pytest
import torch
from safetensors.torch import save_file
from tests_support import randomize_, rel_l2

from wan_models import load_image_encoder
from wan_models.checkpoints.detect import identify
from wan_models.checkpoints.reader import CheckpointError, open_model
from wan_models.config import CLIPConfig
from wan_models.vision import clip

TINY = CLIPConfig(image_size=56, patch_size=14, dim=160, mlp_dim=640, num_heads=2, num_layers=3, out_dim=48)


@torch.no_grad()
def test_official_checkpoint(official, seed, tmp_path):
    from wan.modules.animate.clip import CLIPModel, XLMRobertaCLIP, _clip

    kwargs = {
        "embed_dim": 48, "image_size": 56, "patch_size": 14, "vision_dim": 160, "vision_heads": 2, "vision_layers": 3,
        "vocab_size": 11, "max_text_len": 6, "text_dim": 16, "text_heads": 2, "text_layers": 1,
    }  # fmt: skip
    model, transforms = _clip(model_cls=XLMRobertaCLIP, pretrained_name="", return_transforms=True, **kwargs)
    randomize_(model, std=0.2).eval()
    theirs = object.__new__(CLIPModel)
    theirs.model, theirs.transforms, theirs.dtype = model, transforms, torch.float32
    torch.save(model.state_dict(), tmp_path / "clip.pth")

    tower = load_image_encoder(tmp_path / "clip.pth")
    assert tower.config == TINY
    picture = torch.rand(1, 90, 70, 3)
    expected = theirs.visual([(picture * 2 - 1).movedim(-1, 0)])
    assert rel_l2(tower(clip.preprocess(picture, 56))[0], expected) < 1e-5


@torch.no_grad()
def test_transformers_names(seed, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=160, intermediate_size=640, projection_dim=48, num_hidden_layers=3, num_attention_heads=2,
        image_size=56, patch_size=14, hidden_act="gelu",
    )  # fmt: skip
    theirs = randomize_(CLIPVisionModelWithProjection(config), std=0.2).eval()
    save_file(theirs.state_dict(), tmp_path / "clip_vision_h.safetensors")
    tower = load_image_encoder(tmp_path / "clip_vision_h.safetensors")
    assert tower.config == TINY
    pictures = torch.randn(2, 3, 56, 56)
    expected = theirs(pixel_values=pictures, output_hidden_states=True)
    features, last = tower(pictures)
    assert rel_l2(features, expected.hidden_states[-2]) < 1e-5
    assert rel_l2(last, expected.last_hidden_state) < 1e-5
    assert rel_l2(tower.embed(last), expected.image_embeds) < 1e-5


def test_an_incomplete_file_says_so(seed, tmp_path):
    state = {f"visual.{k}": v for k, v in clip.VisionTransformer(TINY).state_dict().items()}
    torch.save({k: v for k, v in state.items() if "1.mlp.2.weight" not in k}, tmp_path / "clip.pth")
    assert identify(open_model(tmp_path / "clip.pth")).kind == "clip_vision"
    with pytest.raises(CheckpointError, match=r"transformer.1.mlp.2.weight is missing"):
        load_image_encoder(tmp_path / "clip.pth")
