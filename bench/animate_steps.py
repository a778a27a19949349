"""Eight steps of a tiny animation transformer with the released face encoder: the official model looks at every face
anew at each of them."""

import torch

from bench.peers import official_attention, prepare
from bench.timing import interleaved, rel_l2
from devhost.official import per_frame_attention
from wan_models.config import DiTConfig, FaceConfig
from wan_models.dit.animate import AnimateInputs, WanAnimateModel
from wan_models.random_weights import random_state_dict

SIZES = {"dim": 256, "ffn_dim": 1024, "num_heads": 4, "num_layers": 5, "in_dim": 36, "text_len": 64}
CONFIG = DiTConfig(family="animate", image_dim=1280, text_dim=64, face=FaceConfig(), **SIZES)
LATENT = (3, 32, 32)  # the reference and 5 frames, 768 tokens: more faces take the official model minutes
STEPS = 8


@torch.inference_mode()
def main(rounds=1):
    prepare()
    from wan.modules.animate import face_blocks
    from wan.modules.animate.model_animate import WanAnimateModel as Official

    official_attention()
    face_blocks.attention = per_frame_attention
    torch.manual_seed(0)
    state = random_state_dict(lambda: WanAnimateModel(CONFIG), 0)
    with torch.device("meta"):
        ours = WanAnimateModel(CONFIG)
    ours.load_state_dict(state, assign=True)
    official = Official(text_dim=64, **SIZES).eval()
    official.load_state_dict(state)
    frames = 4 * (LATENT[0] - 1) - 3
    x, y = torch.randn(1, 16, *LATENT), torch.randn(1, 20, *LATENT)
    pose = torch.randn(1, 16, LATENT[0] - 1, *LATENT[1:])
    faces, image, text = (
        torch.rand(1, 3, frames, 512, 512) * 2 - 1,
        torch.randn(1, 257, 1280),
        torch.randn(64, 64),
    )
    times = [torch.tensor([900 - 100 * i]) for i in range(STEPS)]
    tokens = LATENT[0] * LATENT[1] * LATENT[2] // 4

    def run_ours():
        clip = ours.prepare(AnimateInputs(pose, faces), LATENT)
        return [ours(torch.cat([x, y], dim=1), t, [text], image=image, conditions=clip) for t in times][-1]

    def run_official():
        return [official(list(x), t, image, [text], tokens, list(y), pose, faces)[0][None] for t in times][-1]

    last = {}
    contestants = {
        name: lambda name=name, run=run: last.update({name: run()})
        for name, run in (("ours", run_ours), ("official", run_official))
    }
    print(
        f"Animate, fp32, {STEPS} steps of {tokens} tokens, {frames} faces ({torch.get_num_threads()} threads)"
    )
    timings = interleaved(contestants, rounds)
    for name, seconds in timings.items():
        print(
            f"  {name:10} {seconds * 1000:8.0f} ms {timings['official'] / seconds:6.2f} x as fast  "
            f"rel. L2 {rel_l2(last[name], last['official']):.1e}"
        )


if __name__ == "__main__":
    main()
