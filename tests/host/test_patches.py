"""What other nodes and packs put on a MODEL changes ours as it changes the host's own, with the same weights."""

import re
from dataclasses import replace

import pytest
from forked import run_script
from safetensors.torch import save_file

from demo.tiny_release import DIT, DITS
from wan_models.config import FaceConfig, SpeechConfig
from wan_models.dit.animate import WanAnimateModel
from wan_models.dit.base import WanModel
from wan_models.dit.speech import WanSpeechModel
from wan_models.random_weights import random_state_dict

# as wide as the host's InfiniteTalk needs it: its 40 heads are fixed
WIDE = replace(DIT, dim=640, ffn_dim=320, num_heads=5, num_layers=3)
MODELS = {
    "p_t2v": DIT,
    "p_i2v": replace(DIT, family="i2v", in_dim=36),
    "p_i2v_clip": replace(WIDE, family="i2v", in_dim=36, image_dim=1280),
    "p_ti2v": replace(DIT, family="ti2v", in_dim=48, out_dim=48),
    # the sizes that the host's own loader takes for granted
    "p_s2v": replace(DIT, family="s2v", speech=SpeechConfig()),
    "p_animate": replace(DITS["Animate-14B"], image_dim=1280, face=FaceConfig()),
}
KINDS = {"s2v": WanSpeechModel, "animate": WanAnimateModel}


@pytest.fixture(scope="module")
def results(comfyui, base):
    for seed, (name, config) in enumerate(MODELS.items()):
        kind = KINDS.get(config.family, WanModel)
        state = random_state_dict(lambda kind=kind, config=config: kind(config), 50 + seed)
        save_file(state, base / "models" / "diffusion_models" / f"{name}.safetensors")
    return run_script("patches_script.py", comfyui, base)


def test_every_patch_changes_both_models_alike(results):
    rows = results["rows"]
    lines = [f"{'model':12}{'node':52}{'host changes':>14}{'ours differs':>14}"]
    lines += [f"{r['family']:12}{r['node']:52}{r['host']:14.3g}{r['ours']:14.2g}" for r in rows]
    print("\n".join(lines))  # noqa: T201
    assert {r["family"] for r in rows} == set(MODELS) and len(rows) >= 45
    assert [r for r in rows if r["host"] < 1e-3] == []  # a patch that does nothing shows nothing
    assert [r for r in rows if not r["ours"] < 1e-3] == []


def test_patches_on_attentions_results_reach_the_model(results):
    assert min(results["outputs"].values()) > 0.01


def test_the_hosts_choice_of_compute_dtype_counts(results):
    dtypes = results["dtypes"]  # the float32 stream of ours rounds less than the host's
    assert dtypes["host"] / 10 < dtypes["ours"] < dtypes["host"] * 1.2


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("teacache", "forward_orig.*EasyCache"),
        ("context_latents", "conditions the model with context_latents.*Load Diffusion Model"),
        ("unused patch", "refusals does nothing here: .*input_block_patch"),
        (
            "workers, forward",
            "self_attention_replaced changes blocks.0.self_attn.forward of the model.*several GPUs",
        ),
        ("workers, attention", "attention_override changes the attention, which the worker"),
        ("workers, compile", "torch.compile"),
        ("workers, patch", "attn2_patch changes single blocks"),
        ("workers, SLG", "replace_patch changes single blocks"),
        ("workers, nothing", "^$"),
        ("workers, positions", "^$"),
        ("workers, WanNAG", "^$"),
        ("WanNAG, cross-attention", "replaces the cross-attention that WanNAG and WanPromptSchedule work in"),
        ("WanNAG, the host's model", "WanNAG works inside the models of WanDiTLoader.*load the file with"),
        ("WanNAG, other text", "negative of WanNAG has text features 768 wide, and the model looks at 4096"),
        ("WanNAG, several texts", "negative of WanNAG must be one text"),
        ("WanNAG, percents", r"start_percent of WanNAG \(0.5\) is after its end_percent \(0.4\)"),
    ],
)
def test_what_cannot_be_honoured_is_said(results, case, message):
    assert re.search(message, results["refusals"][case])
