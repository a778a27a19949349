"""One forward of a tiny transformer, as a multiple of its bare matrix products and attention calls."""

import torch
import torch.nn.functional as F

from bench.peers import official_attention, prepare
from bench.timing import interleaved, rel_l2
from wan_models.checkpoints.keys import to_foreign
from wan_models.config import DiTConfig
from wan_models.dit.base import WanModel
from wan_models.random_weights import random_state_dict

CONFIG = DiTConfig(dim=256, ffn_dim=1024, num_heads=4, num_layers=4, text_dim=64, text_len=64)
LATENT = (16, 9, 24, 40)  # 2,160 tokens


def floor(state, tokens):
    """The linear layers and attention of all blocks, and nothing else."""
    x, text = torch.randn(1, tokens, CONFIG.dim), torch.randn(1, CONFIG.text_len, CONFIG.dim)

    def attention(q, k, v):
        q, k, v = (t.unflatten(-1, (CONFIG.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def run():
        for i in range(CONFIG.num_layers):

            def linear(layer, h, i=i):
                return F.linear(h, state[f"blocks.{i}.{layer}.weight"], state[f"blocks.{i}.{layer}.bias"])

            for block, other in (("self_attn", x), ("cross_attn", text)):
                q, k, v = linear(f"{block}.q", x), linear(f"{block}.k", other), linear(f"{block}.v", other)
                linear(f"{block}.o", attention(q, k, v))
            linear("ffn.2", linear("ffn.0", x))

    return run


@torch.inference_mode()
def main(rounds=10):
    has_host = prepare()
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    state = random_state_dict(lambda: WanModel(CONFIG), 0)
    x, text, t = (
        torch.randn(1, *LATENT),
        torch.randn(1, CONFIG.text_len, CONFIG.text_dim),
        torch.tensor([500]),
    )
    tokens = LATENT[1] * LATENT[2] * LATENT[3] // 4
    sizes = {"dim": 256, "ffn_dim": 1024, "num_heads": 4, "num_layers": 4, "text_dim": 64, "text_len": 64}

    with torch.device("meta"):
        ours = WanModel(CONFIG)
    ours.load_state_dict(state, assign=True)
    official = official_attention()(**sizes).eval()
    official.load_state_dict(state)
    theirs = WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=64, in_channels=16, out_channels=16, text_dim=64, freq_dim=256,
        ffn_dim=1024, num_layers=4, cross_attn_norm=True,
    ).eval()  # fmt: skip
    names = to_foreign("diffusers transformer", state)
    theirs.load_state_dict({names[k]: v for k, v in state.items()})

    with torch.device("meta"):
        compiled = WanModel(CONFIG)
    compiled.load_state_dict(state, assign=True)
    for block in compiled.blocks:
        block.compile()

    per_token = t[:, None].expand(1, tokens)
    contestants = {
        "floor": floor(state, tokens),
        "ours": lambda: ours(x, t, text),
        "compiled": lambda: compiled(x, t, text),
        "official": lambda: official(list(x), per_token, list(text), tokens)[0][None],
        "diffusers": lambda: theirs(x, t, text, return_dict=False)[0],
    }
    if has_host:
        import comfy.ldm.wan.model
        import comfy.ops

        host = comfy.ldm.wan.model.WanModel(
            **sizes, operations=comfy.ops.disable_weight_init, dtype=torch.float32
        )
        host.load_state_dict(state)
        contestants["host"] = lambda: host(x, t.float(), text)

    reference = contestants["official"]()
    medians = interleaved(contestants, rounds)
    print(f"DiT forward, fp32, {tokens} tokens, dim 256, 4 layers ({torch.get_num_threads()} threads)")
    for name, seconds in medians.items():
        error = (
            "" if name == "floor" else f"  rel. L2 to official {rel_l2(contestants[name](), reference):.1e}"
        )
        print(f"  {name:<10} {seconds * 1e3:7.1f} ms  {seconds / medians['floor']:5.2f} x floor{error}")


if __name__ == "__main__":
    main()
