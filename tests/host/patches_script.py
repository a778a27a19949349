"""Runs inside a ComfyUI's own Python process: `patches_script.py COMFYUI PACK BASE`; prints one JSON object.

The same weights in the host's own MODEL and in ours, each sampled as it is and again with what a node or a pack puts on
a MODEL. Both are to change alike. With KJNODES set to the folder of that pack, its nodes are tried too.
"""

import inspect
import json
import logging
import os
import runpy
import sys
import unittest.mock
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
base = Path(sys.argv[3])
# with the attention of hosts that have a card: the one for CPUs asks for memory, which takes torch.compile seconds
nodes = inside["enter"](*map(Path, sys.argv[1:4]), ("--cpu", "--use-pytorch-cross-attention"))

import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.flux.layers import EmbedND  # noqa: E402
from comfy.ldm.flux.math import apply_rope1  # noqa: E402
from comfy.ldm.modules.attention import optimized_attention  # noqa: E402
from comfy_api.torch_helpers import set_torch_compile_wrapper  # noqa: E402
from comfy_extras import (  # noqa: E402
    nodes_context_windows,
    nodes_easycache,
    nodes_model_advanced,
    nodes_model_patch,
    nodes_rope,
    nodes_slg,
    nodes_wan,
)

# whole timesteps, which are the same in both; caches skip nothing before the fourth step
SIGMAS, MORE = torch.tensor([1.0, 0.75, 0.0]), torch.tensor([1.0, 0.875, 0.75, 0.5, 0.25, 0.125, 0.0])
FRAMES, HEIGHT, WIDTH = 5, 6, 8
# rows of text and of an image: of the official 512 and 257, most of the time would go into projecting them
TEXT, IMAGE = 16, 17
generator = torch.Generator().manual_seed(int(os.environ.get("WAN22_TEST_SEED", "3")))
HANDED_OVER = Path(sys.modules["comfy.ldm.wan.model"].__file__).read_text()  # by the host's model to patches


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm())


class Family:
    """One file in both models, with conditioning that both take."""

    def __init__(self, name: str, channels: int, values: dict | None = None) -> None:
        path = base / "models" / "diffusion_models" / f"{name}.safetensors"
        self.name = name
        self.ours = nodes["WanDiTLoader"].execute(path.name, "fp32").args[0]
        self.hosts = comfy.sd.load_diffusion_model(str(path), {"dtype": torch.float32})
        network = self.ours.model.diffusion_model
        network.config = replace(network.config, text_len=TEXT)
        self.positive = [[noise(1, TEXT, 4096) / 8, values or {}]]
        self.negative = [[noise(1, TEXT, 4096) / 8, values or {}]]
        self.noise = noise(1, channels, FRAMES, HEIGHT, WIDTH)

    def sample(self, model: object, sigmas: torch.Tensor, cfg: float) -> torch.Tensor:
        sampler = comfy.samplers.sampler_object("euler")
        conditioning = (self.positive, self.negative, torch.zeros_like(self.noise))
        return comfy.sample.sample_custom(
            model, self.noise, cfg, sampler, sigmas, *conditioning, seed=1
        ).double()


def families() -> list[Family]:
    image = {
        "concat_latent_image": noise(1, 16, FRAMES, HEIGHT, WIDTH),
        "concat_mask": torch.ones(1, 1, FRAMES, HEIGHT, WIDTH),
    }
    image["concat_mask"][:, :, 0] = 0
    seen = {"clip_vision_output": SimpleNamespace(penultimate_hidden_states=noise(1, IMAGE, 1280))}
    posed = {"control_video": noise(1, 16, FRAMES, HEIGHT, WIDTH)}
    pose = {"pose_video_latent": noise(1, 16, FRAMES - 1, HEIGHT, WIDTH)}
    return [
        Family("p_t2v", 16),
        Family("p_i2v", 16, image),
        Family("p_i2v_clip", 16, {**image, **seen}),
        Family("p_ti2v", 48),
        Family("p_s2v", 16, {"reference_latents": [noise(1, 16, 1, HEIGHT, WIDTH)], **posed}),
        Family("p_animate", 16, {**image, **seen, **pose}),
    ]


# --- what packs do to a MODEL, as the host's own Wan model is made for it ---


def blocks_of(model: object) -> list:
    return list(enumerate(model.get_model_object("diffusion_model").blocks))


def self_attention_replaced(model: object) -> object:
    def forward_of(layer: torch.nn.Module) -> object:
        def forward(x: torch.Tensor, freqs: torch.Tensor, transformer_options: dict = {}) -> torch.Tensor:  # noqa: B006
            shape = (*x.shape[:2], layer.num_heads, layer.head_dim)
            q, k = (
                apply_rope1(norm(linear(x)).view(shape), freqs).flatten(2)
                for norm, linear in ((layer.norm_q, layer.q), (layer.norm_k, layer.k))
            )
            out = optimized_attention(
                q, k * 0.9, layer.v(x), layer.num_heads, transformer_options=transformer_options
            )
            return layer.o(out) * 1.1

        return forward

    model = model.clone()
    for index, block in blocks_of(model):
        model.add_object_patch(
            f"diffusion_model.blocks.{index}.self_attn.forward", forward_of(block.self_attn)
        )
    return model


def cross_attention_replaced(model: object) -> object:
    def forward_of(layer: torch.nn.Module) -> object:
        def forward(
            x: torch.Tensor, context: torch.Tensor, context_img_len: object = None, **_: object
        ) -> torch.Tensor:
            q, out = layer.norm_q(layer.q(x)), 0
            if hasattr(layer, "k_img"):
                image, context = context[:, :context_img_len], context[:, context_img_len:]
                k = layer.norm_k_img(layer.k_img(image))
                out = optimized_attention(q, k, layer.v_img(image), layer.num_heads) * 1.5
            k = layer.norm_k(layer.k(context))
            return layer.o(out + optimized_attention(q, k, layer.v(context), layer.num_heads) * 0.5)

        return forward

    model = model.clone()
    for index, block in blocks_of(model):
        model.add_object_patch(
            f"diffusion_model.blocks.{index}.cross_attn.forward", forward_of(block.cross_attn)
        )
    return model


def guided(family: Family) -> object:
    """WanNAG on our MODEL, and on the host's its formula in the place of each cross-attention to the text."""
    negative, rows = [[noise(1, TEXT, 4096) / 8, {}]], []
    scale, tau, alpha = 6.0, 1.5, 0.5

    def forward_of(layer: torch.nn.Module, text: torch.Tensor) -> object:
        def look(q: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            return optimized_attention(q, layer.norm_k(layer.k(seen)), layer.v(seen), layer.num_heads)

        def forward(
            x: torch.Tensor, context: torch.Tensor, context_img_len: object = None, **_: object
        ) -> torch.Tensor:
            q, out = layer.norm_q(layer.q(x)), 0
            if hasattr(layer, "k_img"):
                image, context = context[:, :context_img_len], context[:, context_img_len:]
                k = layer.norm_k_img(layer.k_img(image))
                out = optimized_attention(q, k, layer.v_img(image), layer.num_heads)
            seen = look(q, context)
            for row, which in enumerate(rows):
                if which == 0:
                    one = seen[row]
                    far = one * scale - look(q[row : row + 1], text)[0] * (scale - 1)
                    ratio = far.abs().sum(-1, keepdim=True) / one.abs().sum(-1, keepdim=True)
                    seen[row] = alpha * torch.where(ratio > tau, far / ratio * tau, far) + (1 - alpha) * one
            return layer.o(seen + out)

        return forward

    def remember(apply: object, args: dict) -> torch.Tensor:
        rows[:] = args["cond_or_uncond"]
        return apply(args["input"], args["timestep"], **args["c"])

    def change(model: object) -> object:
        if model is family.ours:
            inputs = {"negative": negative, "scale": scale, "tau": tau, "alpha": alpha}
            return nodes["WanNAG"].execute(model, **inputs).args[0]
        text = model.get_model_object("diffusion_model").text_embedding(negative[0][0])
        model = model.clone()
        model.set_model_unet_function_wrapper(remember)
        for index, block in blocks_of(model):
            forward = forward_of(block.cross_attn, text)
            model.add_object_patch(f"diffusion_model.blocks.{index}.cross_attn.forward", forward)
        return model

    return change


def block_replaced(model: object) -> object:
    model = model.clone()
    block = blocks_of(model)[0][1]

    def forward(x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return type(block).forward(block, x, *args, **kwargs) * 0.9

    model.add_object_patch("diffusion_model.blocks.0.forward", forward)
    return model


def feed_forward_replaced(model: object) -> object:
    model = model.clone()
    for index, block in blocks_of(model):
        parts = block.ffn

        def forward(x: torch.Tensor, parts: torch.nn.Sequential = parts) -> torch.Tensor:
            return torch.cat([torch.nn.Sequential.forward(parts, c) for c in x.chunk(3, dim=1)], dim=1) * 1.2

        model.add_object_patch(f"diffusion_model.blocks.{index}.ffn.forward", forward)
    return model


def positions_replaced(model: object) -> object:
    class Embedder(EmbedND):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids * torch.tensor([0.5, 1.0, 1.5]))

    network = model.model.diffusion_model
    model, width = model.clone(), network.dim // network.num_heads
    axes = [width - 4 * (width // 6), 2 * (width // 6), 2 * (width // 6)]
    model.add_object_patch("diffusion_model.rope_embedder", Embedder(width, 10000.0, axes))
    return model


def replace_patch(model: object) -> object:
    kept = []

    def patch(args: dict, extra: dict) -> dict:
        before = args["img"]
        kept.append(before.clone())
        changed = {
            **args,
            "txt": args["txt"] * 0.5,
            "vec": args["vec"] * 1.1,
            "pe": args["pe"].roll(1, dims=1),
        }
        out = extra["original_block"](changed)["img"]
        assert torch.equal(before, kept.pop())
        return {"img": out + 0.2 * (out - before)}

    model = model.clone()
    model.set_model_patch_replace(patch, "dit", "double_block", 1)
    return model


def double_block_patch(model: object) -> object:
    first = []

    def patch(args: dict) -> dict:
        options, img = args["transformer_options"], args["img"]
        assert options["block_index"] == args["block_index"] and options["total_blocks"] >= 2
        assert args["x"].shape[2:] == (FRAMES, HEIGHT, WIDTH) and args["img_offset"] == 0
        if args["block_index"] == 0:
            first[:] = [img]  # kept without a copy, as the host's blocks leave their inputs alone
        change = args["vec"].mean(dim=(1, 2), keepdim=True) + args["x"].flatten(1).mean(dim=1).view(-1, 1, 1)
        return {"img": img * (1 + 0.2 * torch.tanh(change)) + 0.1 * first[0]}

    model = model.clone()
    model.set_model_double_block_patch(patch)
    return model


def attention_override(model: object) -> object:
    def override(kernel: object, *args: object, **kwargs: object) -> torch.Tensor:
        return kernel(*args, **kwargs) * 0.8

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def attn1_patch(model: object) -> object:
    def patch(args: dict) -> torch.Tensor:
        grid = (FRAMES, HEIGHT // 2, WIDTH // 2)
        assert tuple(args["transformer_options"].get("grid_sizes", grid)) == grid
        return args["x"] + 0.1 * args["q"].flatten(2) - 0.1 * args["k"].flatten(2)

    model = model.clone()
    model.set_model_patch(patch, "attn1_patch")
    return model


def attn2_patch(model: object) -> object:
    def patch(args: dict) -> torch.Tensor:
        return args["x"] * (1.1 + 0.1 * args["transformer_options"]["block_index"]) + 0.05

    model = model.clone()
    model.set_model_patch(patch, "attn2_patch")
    return model


def compiled(model: object, keys: tuple[str, ...]) -> object:
    model = model.clone()
    set_torch_compile_wrapper(model=model, backend="eager", keys=list(keys))
    return model


def compiled_blocks(count: int) -> object:
    """Compiles the first blocks, which takes a second each."""
    return lambda model: compiled(
        model, tuple(f"diffusion_model.blocks.{index}" for index, _ in blocks_of(model)[:count])
    )


def together(*changes: object) -> object:
    def change(model: object) -> object:
        for one in changes:
            model = one(model)
        return model

    return change


# --- nodes of the host ---


def node(cls: type, *args: object, **kwargs: object) -> object:
    """A change by a node of either kind, of which the first result is the MODEL."""

    def change(model: object) -> object:
        out = getattr(cls(), cls.FUNCTION)(model, *args, **kwargs)
        return out[0] if isinstance(out, tuple) else out.args[0]

    return change


def core_nodes() -> dict[str, object]:
    whole = {"start_percent": 0.0, "end_percent": 1.0}
    cache = {"reuse_threshold": 2.0, "start_percent": 0.1, "end_percent": 1.0, "verbose": False}
    windows = {
        "context_length": 9, "context_overlap": 5, "context_schedule": "standard_static", "context_stride": 1,
        "closed_loop": False, "fuse_method": "pyramid", "freenoise": False,
    }  # fmt: skip
    context = nodes_context_windows.WanContextWindowsManualNode
    known = inspect.signature(context.execute).parameters
    windows = {name: value for name, value in windows.items() if name in known}
    return {
        "ScaleROPE": node(nodes_rope.ScaleROPE, 1.5, 0.0, 0.5, 2.0, 2.0, 1.0),
        "SkipLayerGuidanceDiT": node(
            nodes_slg.SkipLayerGuidanceDiT, scale=3.0, double_layers="1", single_layers="", **whole
        ),
        "SkipLayerGuidanceDiTSimple": node(
            nodes_slg.SkipLayerGuidanceDiTSimple, double_layers="0", single_layers="", **whole
        ),
        "EasyCache": node(nodes_easycache.EasyCacheNode, **cache),
        "LazyCache": node(nodes_easycache.LazyCacheNode, **cache),
        "WanContextWindowsManual": node(context, **windows),
    }


def filled(module: torch.nn.Module) -> object:
    """A model patch of the host around a module with random weights."""
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 8
        parameter.data = noise(*parameter.shape) * fan_in**-0.5
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(module, load_device=cpu, offload_device=cpu)


def image_nodes(family: Family) -> dict[str, object]:
    """Nodes of newer hosts that bring a model of their own; both want the width of the Wan model."""
    out: dict[str, object] = {}
    vae = nodes["WanVAELoader"].execute("wan/T2V-A14B/Wan2.1_VAE.pth").args[0]
    picture = torch.rand(1, HEIGHT * 8, WIDTH * 8, 3, generator=generator)
    if hasattr(nodes_wan, "WanInfiniteTalkToVideo"):
        cpu = {"device": "cpu", "dtype": torch.float32, "operations": comfy.ops.manual_cast}
        sizes = {"intermediate_dim": 16, "in_dim": 640, "out_dim": 48, "context_tokens": 4, "num_layers": 3}
        patch = filled(nodes_model_patch.MultiTalkModelPatch(**sizes, **cpu))
        voices = [{"encoded_audio_all_layers": [noise(1, 40, 768) for _ in range(13)]} for _ in range(2)]
        mask = torch.zeros(1, HEIGHT * 8, WIDTH * 8)
        left, right = mask.clone(), mask.clone()
        left[..., : WIDTH * 4], right[..., WIDTH * 4 :] = 1, 1
        two = {"audio_encoder_output_2": voices[1], "mask_1": left, "mask_2": right}
        for name, mode in (("one", {"mode": "single_speaker"}), ("two", {"mode": "two_speakers", **two})):

            def talk(model: object, mode: dict = mode) -> object:
                size = (WIDTH * 8, HEIGHT * 8, FRAMES * 4 - 3)
                inputs = (family.positive, family.negative, vae, *size, voices[0], 5)
                kind = nodes_wan.WanInfiniteTalkToVideo
                return kind.execute(mode, model, patch, *inputs, start_image=picture, audio_scale=1.0).args[0]

            out[f"WanInfiniteTalkToVideo, {name}"] = talk
    if hasattr(nodes_model_patch, "WanUni3CControlnetApply"):
        from comfy.ldm.wan.uni3c import WanUni3CControlnet

        sizes = {"conv_out_dim": 64, "dim": 128, "ffn_dim": 64, "num_layers": 2, "time_embed_dim": 640}
        control = WanUni3CControlnet(
            **sizes,
            out_proj_dim=640,
            mid_channels=32,
            device="cpu",
            dtype=torch.float32,
            operations=comfy.ops.manual_cast,
        )
        film = torch.rand(FRAMES * 4 - 3, HEIGHT * 8, WIDTH * 8, 3, generator=generator)
        apply = nodes_model_patch.WanUni3CControlnetApply
        out["WanUni3CControlnetApply"] = node(apply, filled(control), vae, film, 1.0, 0.0, 1.0)
    return out


def kjnodes(family: Family) -> dict[str, object]:
    folder = os.environ.get("KJNODES")
    if not folder or family.name in ("p_s2v", "p_animate"):  # that have tokens which are not the video's
        return {}
    import server  # noqa: F401  the pack expects the host's own to be there

    kinds = inside["load_pack"](Path(folder)).NODE_CLASS_MAPPINGS
    latent = {"samples": family.noise}
    nag = node(kinds["WanVideoNAG"], [[noise(1, TEXT, 4096) / 8, {}]], 11.0, 0.25, 2.5)
    riflex = node(kinds["ApplyRifleXRoPE_WanVideo"], latent, 6)
    enhance = node(kinds["WanVideoEnhanceAVideoKJ"], latent=latent, weight=4.0)
    compile_blocks = node(kinds["TorchCompileModelWanVideoV2"], "eager", False, "default", False, 64, True)
    advanced = node(kinds["TorchCompileModelAdvanced"], "eager", False, "default", "false", 64, True, False)
    return {
        "KJNodes WanVideoNAG": nag,
        "KJNodes ApplyRifleXRoPE_WanVideo": riflex,
        "KJNodes WanVideoEnhanceAVideoKJ": enhance,
        "KJNodes NAG, RIFLEx, compile": together(nag, riflex, compile_blocks),
        "KJNodes NAG, RIFLEx, compile advanced": together(nag, riflex, advanced),
        "KJNodes NAG, RIFLEx, Enhance-A-Video, EasyCache": together(
            nag, riflex, enhance, core_nodes()["EasyCache"]
        ),
    }


def changes(family: Family) -> dict[str, object]:
    """The changes to try on a family: all of them on the first and on the one with most inputs."""
    out = {
        "self_attn.forward replaced": self_attention_replaced,
        "cross_attn.forward replaced": cross_attention_replaced,
        "rope_embedder replaced": positions_replaced,
        "patches_replace": replace_patch,
        "WanNAG": guided(family),
    }
    if "attn1_patch" in HANDED_OVER:
        out |= {"attn1_patch": attn1_patch, "attn2_patch": attn2_patch, "double_block": double_block_patch}
        out["all patches"] = together(attn1_patch, attn2_patch, double_block_patch, replace_patch)
    if family.name in ("p_t2v", "p_i2v_clip"):
        out |= {
            "block.forward replaced": block_replaced,
            "ffn.forward replaced": feed_forward_replaced,
            "optimized_attention_override": attention_override,
            "forwards replaced, blocks compiled": together(
                self_attention_replaced,
                cross_attention_replaced,
                positions_replaced,
                compiled_blocks(2 if family.name == "p_t2v" else 1),
            ),
            **core_nodes(),
        }
    if family.name == "p_i2v_clip":
        del out["WanContextWindowsManual"]  # older hosts cannot cut the image's conditioning into windows
        out |= image_nodes(family)
    return out | kjnodes(family)


def rows_of(family: Family) -> list[dict]:
    rows, plain = [], {}
    for name, change in {"none": lambda model: model, **changes(family)}.items():
        # the host's InfiniteTalk takes no batch of prompt and negative prompt
        settings = (MORE if "Cache" in name else SIGMAS, 1.0 if "InfiniteTalk" in name else 3.0)
        models = (family.hosts, family.ours)
        if settings not in plain:
            plain[settings] = [family.sample(model, *settings) for model in models]
        hosts, ours = plain[settings]
        theirs, mine = (family.sample(change(model), *settings) for model in models)
        if name != "none":
            theirs, mine = theirs - hosts, mine - ours
        row = {"family": family.name, "node": name, "host": float(theirs.norm() / hosts.norm())}
        rows.append({**row, "ours": difference(mine, theirs)})
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def said(action: object) -> str:
    """The message that an action ends with, "" where it ends well."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return ""


def outputs_patched(family: Family) -> dict[str, float]:
    """Patches on the results of attention, which the host's Wan model has no place for: how much each changes ours."""
    plain = family.sample(family.ours, SIGMAS, 3.0)
    out = {}
    for kind in ("attn1_output_patch", "attn2_output_patch"):
        seen = []

        def patch(x: torch.Tensor, options: dict, seen: list = seen) -> torch.Tensor:
            seen.append((x.shape[-1] == options["n_heads"] * options["dim_head"], options["block_index"]))
            return x * 0.5

        model = family.ours.clone()
        model.set_model_patch(patch, kind)
        out[kind] = difference(family.sample(model, SIGMAS, 3.0), plain)
        assert {index for _, index in seen} == {0, 1} and all(fits for fits, _ in seen)
    return out


def compute_dtypes(family: Family) -> dict[str, float]:
    """What computing in bfloat16, which ModelComputeDtype asks for, takes away from each of the two models."""
    change = node(nodes_model_advanced.ModelComputeDtype, "bf16")
    plain, models = family.sample(family.hosts, SIGMAS, 3.0), {"host": family.hosts, "ours": family.ours}
    return {
        name: difference(family.sample(change(model), SIGMAS, 3.0), plain) for name, model in models.items()
    }


def refusals(family: Family) -> dict[str, str]:
    """What is said of patches that one process or no model can honour."""
    bridge = next(
        m for name, m in sys.modules.items() if name.endswith("comfy_bridge.models.foreign_patches")
    )

    def on_workers(change: object) -> str:
        return said(lambda: bridge.refuse_on_workers(change(family.ours)))

    def teacache() -> None:
        model, network = family.ours.clone(), family.ours.model.diffusion_model
        with unittest.mock.patch.multiple(network, forward_orig=lambda *args, **kwargs: None):
            family.sample(model, SIGMAS, 3.0)

    def context() -> None:
        family.ours.model.diffusion_model(
            family.noise, torch.ones(1), family.positive[0][0], context_latents=[family.noise]
        )

    log = []
    handler = type(
        "Handler", (logging.Handler,), {"emit": lambda self, record: log.append(record.getMessage())}
    )()
    logging.getLogger().addHandler(handler)
    strange = family.ours.clone()
    strange.set_model_input_block_patch(lambda h, options: h)
    family.sample(strange, SIGMAS, 3.0)
    logging.getLogger().removeHandler(handler)
    return {
        "teacache": said(teacache),
        "context_latents": said(context),
        "unused patch": "\n".join(line for line in log if "input_block_patch" in line),
        "workers, nothing": on_workers(lambda model: model),
        "workers, positions": on_workers(together(positions_replaced, core_nodes()["ScaleROPE"])),
        "workers, forward": on_workers(self_attention_replaced),
        "workers, attention": on_workers(attention_override),
        "workers, compile": on_workers(compiled_blocks(1)),
        "workers, patch": on_workers(attn2_patch),
        "workers, SLG": on_workers(replace_patch),
        "workers, WanNAG": on_workers(guided(family)),
        "WanNAG, cross-attention": said(
            lambda: family.sample(cross_attention_replaced(guided(family)(family.ours)), SIGMAS, 3.0)
        ),
        "WanNAG, the host's model": said(
            lambda: nodes["WanNAG"].execute(family.hosts, negative=family.negative, scale=11.0)
        ),
        "WanNAG, other text": said(
            lambda: nodes["WanNAG"].execute(family.ours, negative=[[noise(1, TEXT, 768), {}]], scale=11.0)
        ),
        "WanNAG, several texts": said(
            lambda: nodes["WanNAG"].execute(family.ours, negative=family.negative * 2, scale=11.0)
        ),
        "WanNAG, percents": said(
            lambda: nodes["WanNAG"].execute(
                family.ours, negative=family.negative, scale=11.0, start_percent=0.5, end_percent=0.4
            )
        ),
    }


@torch.inference_mode()
def main() -> dict:
    every = families()
    return {
        "rows": [row for family in every for row in rows_of(family)],
        "outputs": outputs_patched(every[0]),
        "dtypes": compute_dtypes(every[0]),
        "refusals": refusals(every[0]),
    }


sys.stdout.write(json.dumps(main()) + "\n")
