"""Runs inside a ComfyUI's own Python process: `packed_script.py COMFYUI PACK BASE`; prints one JSON object.

What the host and its nodes make of models whose weights stay packed, against the same with the unpacked weights from
a float32 file, and what Wan LoRA makes of quantised models of other loaders, against the host's own LoRA loader.
Numbers are relative L2 differences.
"""

import json
import runpy
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
comfyui, pack, base = map(Path, sys.argv[1:4])
wan = inside["enter"](comfyui, pack, base)

import comfy.hooks  # noqa: E402
import comfy.model_management as management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_lora_extract, nodes_model_merging, nodes_model_merging_model_specific  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import nodes as host_nodes  # noqa: E402

torch.set_num_threads(1)
PREFIX = "diffusion_model."
# rows of text in `run`: of the official 512, most of the time would go into projecting them
TEXT = 16
PACKED = {
    "scaled": "scaled.safetensors",
    "newer": "comfy_quant.safetensors",
    "Q8_0": "Q8_0.gguf",
    "Q4_K": "Q4_K.gguf",
}
Q = f"{PREFIX}blocks.0.self_attn.q.weight"


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def dit(file: str, dtype: str = "default") -> object:
    model = wan["WanDiTLoader"].execute(file, dtype).args[0]
    network = model.model.diffusion_model
    network.config = replace(network.config, text_len=TEXT)
    return model


def is_of_host(model: object) -> bool:
    """Whether the weights are the host's own quantised tensors, of which `quantized_script.py` is."""
    return type(model.get_model_object(Q.removesuffix(".weight")).weight.data).__name__ == "QuantizedTensor"


def unpacked(kind: str) -> str:
    return f"{PACKED[kind].rsplit('.')[0]} unpacked.safetensors"


def plain(kind: str) -> object:
    """The same weights, unpacked, from a float32 file."""
    return dit(unpacked(kind))


def theirs(file: str) -> object:
    return host_nodes.UNETLoader().load_unet(file, "default")[0]


def lora(model: object, strength: float, file: str = "mixed.safetensors") -> object:
    return wan["WanLoRA"].execute(model, file, None, strength).args[0]


def saved(node: object, folder: str, *inputs: object) -> dict[str, torch.Tensor]:
    """What a saving node writes, whose file is then moved to the models under the name of its folder."""
    node().save(*inputs, f"{folder}/x")
    (file,) = (base / "output" / folder).iterdir()
    place = base / "models" / "diffusion_models" / f"{folder}.safetensors"
    file.rename(place)
    return load_file(place)


@torch.inference_mode()
def main() -> dict:
    clip = wan["WanT5Loader"].execute("wan/T2V-A14B/models_t5_umt5-xxl-enc-bf16.pth", "fp32").args[0]
    texts = wan["WanT5Encode"].execute(clip, "two cats", "blurry").args[:2]
    latent = wan["WanEmptyLatent"].execute(64, 48, 5).args[0]
    vae = wan["WanVAELoader"].execute("wan/T2V-A14B/Wan2.1_VAE.pth").args[0]

    def sample(model: object, positive: object) -> torch.Tensor:
        inputs = {"latent_image": latent, "preset": "custom", "seed": 1, "steps": 1}
        return wan["WanMoESampler"].execute(model, positive, texts[1], **inputs).args[0]["samples"]

    def run(model: object) -> torch.Tensor:
        """One forward as the host loads and calls a model."""
        management.load_models_gpu([model])
        options = model.model_options["transformer_options"]
        context = texts[0][0][0][:, :TEXT]
        x = torch.randn(1, 16, 2, 6, 8, generator=torch.Generator().manual_seed(1))
        return model.model.apply_model(
            x, torch.tensor([0.7]), c_crossattn=context, transformer_options=options
        )

    # a host may hold weights of the other kinds in layers of its own
    kinds = [kind for kind in PACKED if not is_of_host(dit(PACKED[kind]))]
    of_prompts = [kind for kind in ("scaled", "Q8_0") if kind in kinds]
    encoders = ("t5 scaled.safetensors", "t5 Q8_0.gguf") if "scaled" in kinds else ("t5 Q8_0.gguf",)
    results = {
        "saved": each(kinds, lambda kind: saving(kind, run, clip, vae)),
        "merged": each(kinds, lambda kind: merging(kind, run)),
        "readers": each(kinds, readers),
        "prompt LoRA": each(of_prompts, lambda kind: prompt_lora(kind, sample, texts[0])),
        "text encoder": each(encoders, text_encoder),
        "released": released(("bf16", "fp8_e4m3fn"), run, lambda model: sample(model, texts[0])),
        "foreign": each(loaders(), lambda what: foreign(what, run)),
    }
    management.unload_all_models()  # which ends the workers
    return results


def each(whats: object, measure: object) -> dict:
    """The measure of each, or why there is none."""
    out = {}
    for what in whats:
        try:
            if (found := measure(what)) is not None:
                out[what] = found
        except Exception:
            out[what] = {"failed": traceback.format_exc()[-1500:]}
            management.unload_all_models()
    return out


def saving(kind: str, run: object, clip: object, vae: object) -> dict:
    """ModelSave and CheckpointSave, with two LoRAs, loaded by this pack and by the host."""
    model = lora(lora(dit(PACKED[kind]), 0.7), -0.4, "lora.safetensors")
    expected = run(model)
    weights = saved(nodes_model_merging.ModelSave, f"save_{kind}", model)
    whole = saved(nodes_model_merging.CheckpointSave, f"checkpoint_{kind}", model, clip, vae)
    # with most layers offloaded, as on a small GPU
    model.unpatch_model(model.offload_device)
    model.load(model.load_device, lowvram_model_memory=1)
    again = saved(nodes_model_merging.ModelSave, f"partly_{kind}", model)
    names = {f"model.{key}" for key in model.model.state_dict() if key.startswith(PREFIX)}
    unloaded = run(model)
    return {
        "names": set(weights) == names and names < set(whole),
        "dtypes": sorted({str(weight.dtype) for weight in weights.values()}),
        "ours": difference(run(dit(f"save_{kind}.safetensors")), expected),
        "theirs": difference(
            run(theirs(f"save_{kind}.safetensors")),
            run(lora(lora(theirs(unpacked(kind)), 0.7), -0.4, "lora.safetensors")),
        ),
        "checkpoint": max(float((whole[key] - value).abs().max()) for key, value in weights.items()),
        "partly loaded": max(float((again[key] - value).abs().max()) for key, value in weights.items()),
        "afterwards": difference(unloaded, expected),
        "LoRAs": difference(run(dit(PACKED[kind])), expected),
    }


def merging(kind: str, run: object) -> dict:
    """Every merge node on packed models, against the same node on unpacked ones."""
    nodes = nodes_model_merging.NODE_CLASS_MAPPINGS
    blocks = {"patch_embedding.": 0.9, "blocks.0.": 0.2, "blocks.1.": 0.7, "head.": 0.4}
    kinds = {
        "simple": lambda a, b: nodes["ModelMergeSimple"]().merge(a, b, 0.3),
        "add": lambda a, b: nodes["ModelMergeAdd"]().merge(a, b),
        "subtract": lambda a, b: nodes["ModelMergeSubtract"]().merge(a, b, 0.4),
        "blocks": lambda a, b: nodes["ModelMergeBlocks"]().merge(a, b, input=0.8, middle=0.5, out=0.1),
        "wan blocks": lambda a, b: nodes_model_merging_model_specific.ModelMergeWAN2_1().merge(
            a, b, **blocks
        ),
    }
    second = "Q4_K" if kind == "Q8_0" else "Q8_0"
    other, high = PACKED[second], "high.safetensors"
    out = {}
    for op, merge in kinds.items():
        pairs = {
            "as first": ((dit(PACKED[kind]), dit(high)), (plain(kind), dit(high))),
            "as second": ((dit(high), dit(PACKED[kind])), (dit(high), plain(kind))),
        }
        if op == "simple":
            full = plain(second)
            pairs |= {
                "into the host's": ((theirs(high), dit(PACKED[kind])), (theirs(high), plain(kind))),
                "of the host's": ((dit(PACKED[kind]), theirs(high)), (plain(kind), theirs(high))),
                "both packed": ((dit(PACKED[kind]), dit(other)), (plain(kind), full)),
            }
        for what, (ours, expected) in pairs.items():
            # LoRAs below the merge on both, and above it
            found, wanted = (lora(merge(lora(a, 0.5), lora(b, 0.3))[0], 0.2) for a, b in (ours, expected))
            out[f"{op} {what}"] = difference(run(found), run(wanted))
    weights = saved(nodes_model_merging.ModelSave, f"merged_{kind}", found)
    out["saved"] = difference(run(dit(f"merged_{kind}.safetensors")), run(wanted))
    assert len(weights) > 50

    # a LoRA taken out of the difference of two models
    a, b = dit(PACKED[kind]), dit(high)
    (apart,) = nodes["ModelMergeSubtract"]().merge(a, b, 1.0)
    nodes_lora_extract.LoraSave.execute(f"extracted_{kind}/x", 8, "full_diff", True, apart)
    (file,) = (base / "output" / f"extracted_{kind}").iterdir()
    changes = load_file(file)
    key = "blocks.0.self_attn.q.weight"
    right = plain(kind).model.diffusion_model.state_dict()[key] - b.model.diffusion_model.state_dict()[key]
    out["extracted"] = difference(changes[f"{PREFIX}blocks.0.self_attn.q.diff"], right)
    return out


def readers(kind: str) -> dict:
    """Every way to a weight's values, and what it costs to list them."""
    model, full = dit(PACKED[kind]), plain(kind)
    right = full.model.state_dict()[Q]
    key_patches = model.get_key_patches(PREFIX)
    weight, convert = key_patches[Q][0]
    listed = model.model.state_dict()
    view = listed[Q]
    roads = {
        "state_dict": view,
        "diffusion_model.state_dict": model.model.diffusion_model.state_dict()[Q.removeprefix(PREFIX)],
        "model_state_dict": model.model_state_dict(PREFIX)[Q],
        "get_model_object": model.get_model_object(Q),
        "get_key_patches": convert(
            management.cast_to_device(weight, torch.device("cpu"), torch.float32, copy=True)
        ),
        "get_key_patches, not converted": weight,
        "to": view.to(torch.float32, copy=True),
        "float16 and back": view.half().float(),
        "copy_": torch.empty_like(view).copy_(view),
        "numpy": torch.from_numpy(view.float().numpy()),
        "numpy of float32": torch.from_numpy(view.numpy()),
        "rows": torch.stack([view[i] for i in range(len(view))]),
        "parameter": torch.nn.Parameter(view, requires_grad=False).data,
        "sum": view + 0,
        "clone": view.detach().clone(),
        "list": torch.tensor(view.tolist()),
    }
    save_file({"x": view.contiguous()}, base / "view.safetensors")
    torch.save({"x": view}, base / "view.pt")
    roads["safetensors"] = load_file(base / "view.safetensors")["x"]
    roads["torch.save"] = torch.load(base / "view.pt", weights_only=True)["x"]
    change = comfy.model_patcher.LowVramPatch(Q, {Q: [(0.5, key_patches[Q], 0.5, None, None)]})
    if hasattr(change, "prepare"):  # of hosts with dynamic VRAM: a merge copied to the device beforehand
        change.prepare(torch.empty(change.memory_required(), dtype=torch.uint8), None)
    roads["merged with itself on the fly"] = change(right.clone())
    try:
        view.mul_(2)
        refused = False
    except RuntimeError as error:
        refused = "cannot be written to" in str(error)
    stored = sum(p.numel() * p.element_size() for p in model.model.parameters())
    return {
        "shapes": all(tuple(value.shape) == tuple(right.shape) for value in roads.values()),
        "dtype": str(view.dtype),
        "worst": max(difference(torch.Tensor(value.float()), right) for value in roads.values()),
        "size": model.model_size() / stored,  # what the host counts is what is held
        "writing is refused": refused,
        "model_dtype": str(model.model_dtype()),
    }


def prompt_lora(kind: str, sample: object, positive: object) -> dict:
    """A LoRA on one prompt only, over one on the model, and the model without it afterwards."""
    file = comfy.utils.load_torch_file(str(base / "models/loras/lora.safetensors"))

    def run(model: object) -> tuple[torch.Tensor, torch.Tensor]:
        model = lora(model, 0.4)
        hooks = comfy.hooks.create_hook_lora(lora=file, strength_model=0.9, strength_clip=0.0)
        cond = comfy.hooks.set_hooks_for_conditioning(positive, hooks)
        return sample(model, cond), sample(model, positive)

    found, expected = run(dit(PACKED[kind])), run(plain(kind))
    return {
        "with": difference(found[0], expected[0]),
        "after": difference(found[1], expected[1]),
        "change": difference(expected[0], expected[1]),
    }


def text_encoder(file: str) -> dict:
    """CLIPSave and merges on an encoder that stays packed, against files of weights that were merged by hand."""
    folder = base / "models" / "text_encoders"
    spiece = load_file(folder / "spiece.safetensors")

    def load(file: str) -> object:
        return wan["WanT5Loader"].execute(file).args[0]

    def by_hand(weights: dict[str, torch.Tensor]) -> object:
        save_file(
            {key: value.bfloat16() for key, value in weights.items()} | spiece, folder / "hand.safetensors"
        )
        return load("hand.safetensors")

    def text(clip: object) -> torch.Tensor:
        return wan["WanT5Encode"].execute(clip, "two cats", "blurry").args[0][0][0]

    merge = nodes_model_merging.CLIPMergeSimple().merge
    packed, second = load(file), load("second.safetensors")
    left = second.patcher.model_state_dict()  # its weights are in float32
    unpacked = {key: value.float() for key, value in packed.get_sd().items()}
    right = load_file(folder / f"{file.split('.', maxsplit=1)[0]} unpacked.safetensors")
    alone = text(packed)
    nodes_model_merging.CLIPSave().save(packed, "clips/x")
    (written,) = (base / "output" / "clips").iterdir()
    save_file(load_file(written) | spiece, folder / "written.safetensors")
    written.unlink()
    mixed = {key: 0.7 * value + 0.3 * left[key].float() for key, value in unpacked.items()}
    expected = text(by_hand(mixed))
    (one,), (other,) = merge(packed, second, 0.7), merge(second, packed, 0.3)
    other.load_model()
    weights = other.get_sd()
    return {
        "values": max(float((unpacked[key] - value).abs().max()) for key, value in right.items()),
        "plain": difference(alone, text(by_hand(unpacked))),
        "saved": difference(alone, text(load("written.safetensors"))),
        "first": difference(text(one), expected),
        "second": max(float((weights[key].float() - value).abs().max()) for key, value in mixed.items()),
        "change": difference(expected, alone),
        "after": difference(text(packed), alone),
    }


def released(dtypes: tuple[str, ...], run: object, sample: object) -> dict:
    """A packed file that was unpacked to a chosen precision, given over to the workers of several GPUs."""

    def held(model: object) -> int:
        return sum(p.numel() * p.element_size() for p in model.model.parameters())

    models = {dtype: dit("Q8_0.gguf", dtype) for dtype in dtypes}
    before = {dtype: (held(m), run(lora(m, 0.5)), sample(m)) for dtype, m in models.items()}
    management.unload_all_models()  # once, for it ends the workers too
    out = {}
    for dtype, model in models.items():
        size, expected, latent = before[dtype]
        shared = wan["WanMultiGPU"].execute(model, gpus=2, timeout=60).args[0]
        out[dtype] = {
            "bytes": held(model) / size,
            "difference": difference(run(lora(model, 0.5)), expected),
            "workers": difference(sample(shared), latent),
        }
    return out


class OtherPackTensor(torch.Tensor):
    """Two weights in one byte, as another pack's loader might keep them: the shape is noted on the tensor."""

    @staticmethod
    def __new__(cls, raw: torch.Tensor, tensor_shape: torch.Size) -> "OtherPackTensor":
        out = raw.as_subclass(cls)
        out.tensor_shape, out.patches = tensor_shape, []
        return out

    def to(self, *args: object, **kwargs: object) -> "OtherPackTensor":
        out = super().to(*args, **kwargs)
        out.tensor_shape, out.patches = self.tensor_shape, list(self.patches)
        return out

    def detach(self) -> "OtherPackTensor":
        return self


class OtherPackLinear(torch.nn.Module):
    """That pack's layer; it lists its weight as it is stored."""

    comfy_cast_weights = True

    def __init__(self, layer: torch.nn.Linear, noted: str) -> None:
        super().__init__()
        weight = layer.weight.float()
        self.step = float(weight.abs().max()) / 7
        levels = (weight / self.step).round().clamp(-7, 7).add(8).to(torch.uint8).flatten()
        raw = levels[::2] * 16 + levels[1::2]
        self.weight = torch.nn.Parameter(OtherPackTensor(raw.view(-1, 1), weight.shape), requires_grad=False)
        self.bias = layer.bias
        self.weight_function, self.bias_function = [], []
        if noted == "quant_state":
            self.weight.quant_state = SimpleNamespace(shape=self.weight.tensor_shape)
        if noted == "features":
            self.in_features, self.out_features = layer.in_features, layer.out_features
        self.shape_ = self.weight.tensor_shape
        if noted != "tensor_shape":
            self.weight.tensor_shape = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raw = self.weight.detach().as_subclass(torch.Tensor).flatten()
        levels = torch.stack([raw // 16, raw % 16], 1).flatten().view(self.shape_)
        weight = (levels.float() - 8) * self.step
        for patches, key in self.weight.patches:
            weight = comfy.lora.calculate_weight(patches, weight, key)
        return torch.nn.functional.linear(x, weight.to(x.dtype), self.bias.to(x.dtype))


class OtherPackPatcher(comfy.model_patcher.ModelPatcher):
    """That pack's patcher: it keeps patches of such weights beside them."""

    def patch_weight_to_device(self, key: str, *args: object, **kwargs: object) -> object:
        weight = comfy.utils.get_attr(self.model, key)
        if not isinstance(weight, OtherPackTensor):
            return super().patch_weight_to_device(key, *args, **kwargs)
        if key in self.patches:
            weight.patches = [(self.patches[key], key)]
        return None

    def unpatch_model(self, *args: object, **kwargs: object) -> None:
        for weight in self.model.parameters():
            if isinstance(weight, OtherPackTensor):
                weight.patches = []
        super().unpatch_model(*args, **kwargs)


def other_pack(noted: str) -> object:
    """A Wan model of the host's with the layers of another pack."""
    model = theirs("low.safetensors")
    network = model.model.diffusion_model
    for block in network.blocks:
        for part in (block.self_attn, block.cross_attn):
            for leaf in "qkvo":
                setattr(part, leaf, OtherPackLinear(getattr(part, leaf), noted))
        for index in (0, 2):
            block.ffn[index] = OtherPackLinear(block.ffn[index], noted)
    return OtherPackPatcher(model.model, model.load_device, model.offload_device)


def quantised(kind: str) -> object | None:
    """The host's own loader on a file in one of its quantised formats; None where it does not have that."""
    import comfy.quant_ops as quant

    known = quant.QUANT_ALGOS.get(kind)
    if known is None or not hasattr(quant.QuantizedTensor, "state_dict"):
        return None
    state = {}
    for key, weight in load_file(base / "models/diffusion_models/low.safetensors").items():
        if not (key.startswith("blocks.") and weight.dim() == 2 and "norm" not in key):
            state[key] = weight
            continue
        layout = known["comfy_tensor_layout"]
        scale = {} if kind in ("mxfp8", "nvfp4") else {"scale": "recalculate"}
        for options in (scale, {}):
            try:
                packed = quant.QuantizedTensor.from_float(weight.bfloat16(), layout, **options)
                break
            except (TypeError, ValueError):
                continue
        state |= {part: value.clone() for part, value in packed.state_dict(key).items()}
        described = json.dumps({"format": kind}).encode()
        state[f"{key.removesuffix('weight')}comfy_quant"] = torch.tensor(list(described), dtype=torch.uint8)
    save_file(state, base / "models" / "diffusion_models" / f"quant_{kind}.safetensors")
    return theirs(f"quant_{kind}.safetensors")


def loaders() -> dict:
    """Makers of quantised MODELs by other loaders; None where the host has no such format."""
    notes = ("tensor_shape", "quant_state", "features")
    kinds = ("float8_e4m3fn", "nvfp4", "mxfp8", "int8_tensorwise", "convrot_w4a4", "asym_w4a8_int8")
    return {
        "the host's": lambda: theirs("low.safetensors"),
        "the host's scaled fp8": lambda: theirs("scaled.safetensors"),
        **{f"another pack, {note}": lambda note=note: other_pack(note) for note in notes},
        **{f"the host's {kind}": lambda kind=kind: quantised(kind) for kind in kinds},
    }


def foreign(what: str, run: object) -> dict | None:
    """Wan LoRA on such a MODEL, against the host's LoRA loader on it."""
    if (model := loaders()[what]()) is None:
        return None
    key = f"{PREFIX}blocks.1.modulation"
    expected = run(host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, "lora.safetensors", 0.7)[0])
    both = lora(model, 0.7, "modulation.safetensors")
    before = model.get_model_object(key).detach().as_subclass(torch.Tensor).float()
    added = 0.7 * load_file(base / "models/loras/modulation.safetensors")[f"{PREFIX}blocks.1.diff_m"]
    return {
        "difference": difference(run(lora(model, 0.7, "lora.safetensors")), expected),
        "change": difference(expected, run(model)),
        "modulation": difference(both.get_model_object(key).float(), before + added),
        "seen": difference(run(both), expected),
    }


print(json.dumps(main()))  # noqa: T201
