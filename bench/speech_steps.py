"""Eight steps of a tiny speech-to-video transformer: the official model does everything anew at each of them."""

import torch

from bench.floor import products, rates
from bench.peers import official_attention, prepare
from bench.timing import interleaved, rel_l2
from wan_models.config import MOTION_FRAMES, DiTConfig, SpeechConfig
from wan_models.dit.speech import MOTION_LATENTS, SpeechInputs, WanSpeechModel
from wan_models.random_weights import random_state_dict

SIZES = {"dim": 256, "ffn_dim": 1024, "num_heads": 4, "num_layers": 4, "text_dim": 64, "text_len": 64}
CONFIG = DiTConfig(family="s2v", speech=SpeechConfig(inject_layers=(0, 1, 2, 3)), **SIZES)
LATENT = (16, 20, 24, 16)  # 80 frames, 1,920 tokens of video
STEPS = 8


@torch.inference_mode()
def main(rounds=4):
    prepare()
    from wan.modules.s2v.model_s2v import WanModel_S2V

    official_attention()
    torch.manual_seed(0)
    state = random_state_dict(lambda: WanSpeechModel(CONFIG), 0)
    with torch.device("meta"):
        ours = WanSpeechModel(CONFIG)
    ours.load_state_dict(state, assign=True)
    official = WanModel_S2V(
        cond_dim=16, audio_dim=1024, audio_inject_layers=[0, 1, 2, 3], enable_adain=True, adain_mode="attn_norm",
        zero_timestep=True, enable_motioner=False, enable_framepack=True, framepack_drop_mode="padd", in_dim=16,
        out_dim=16, **SIZES,
    ).eval()  # fmt: skip
    official.load_state_dict(state)
    x, image = torch.randn(1, *LATENT), torch.randn(1, 16, 1, *LATENT[2:])
    motion, pose = torch.randn(1, 16, MOTION_LATENTS, *LATENT[2:]), torch.randn(1, *LATENT)
    audio, text = torch.randn(1, 25, 1024, 4 * LATENT[1]), torch.randn(1, 64, 64)
    times = [torch.tensor([900 - 100 * i]) for i in range(STEPS)]

    def run_ours():
        clip = ours.prepare(SpeechInputs(image, motion, pose, audio), LATENT[1:])
        return [ours(x, t, text, conditions=clip) for t in times][-1]

    def run_official():
        arguments = (list(text), None, list(image), list(motion), list(pose), audio)
        lengths = [MOTION_FRAMES, MOTION_LATENTS]
        return [official(list(x), t, *arguments, motion_frames=lengths)[0][None] for t in times][-1]

    contestants = {"ours": run_ours, "official": run_official}
    reference = run_official()
    tokens = LATENT[1] * LATENT[2] * LATENT[3] // 4
    print(f"S2V, fp32, {STEPS} steps of {tokens} tokens ({torch.get_num_threads()} threads)")
    alone, flops = products(run_ours)
    timings = interleaved({"products": alone} | contestants, rounds)
    print(f"  {rates(flops, timings.pop('products'), timings['ours'])}")
    for name, seconds in timings.items():
        print(
            f"  {name:10} {seconds * 1000:8.0f} ms {timings['official'] / seconds:6.2f} x as fast  "
            f"rel. L2 {rel_l2(contestants[name](), reference):.1e}"
        )
