"""Runs inside a ComfyUI's own Python process: `streaming_script.py COMFYUI PACK BASE`; prints one JSON object.

Weights that do not fit a card are streamed by the host: its low-memory loading, and dynamic VRAM where it has that, on
a pretended card (`card`). Counts what is copied there in a forward and over a change of experts, and compares the
results with those of a CPU. Numbers are relative L2 differences and bytes."""

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

root = Path(__file__).parents[2]
comfyui, pack, base = map(Path, sys.argv[1:4])
inside = runpy.run_path(str(root / "bench" / "inside_host.py"))
wan = inside["enter"](comfyui, pack, base)
card = runpy.run_path(str(root / "tests" / "support" / "card.py"))

import comfy.lora  # noqa: E402
import comfy.model_management as management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.weight_adapter  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

torch.set_num_threads(1)
DEVICE, TEXT = card["DEVICE"], 16  # rows of text: of 512, most of the time would go into projecting them
RELEASE = "wan/T2V-A14B/"


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator) for shape in ((1, 16, 2, 6, 8), (1, TEXT, 4096)))


def model_of(file: str, lora: bool = False, by_host: bool = False, nag: bool = False) -> object:
    model = wan["WanDiTLoader"].execute(file).args[0]
    network = model.model.diffusion_model
    network.config = replace(network.config, text_len=TEXT)
    if lora:
        model = wan["WanLoRA"].execute(model, "lora.safetensors", None, 0.7).args[0]
    if by_host:
        lora_file = load_file(base / "models" / "loras" / "lora.safetensors")
        model = comfy.sd.load_lora_for_models(model, None, lora_file, 0.7, 0)[0]
    if nag:
        model = wan["WanNAG"].execute(model, [[-inputs()[1], {}]]).args[0]
    return model


def velocity(model: object, place: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    x, text = map(place, inputs())
    options = model.model_options["transformer_options"] | {"wrappers": model.wrappers}
    return model.model.apply_model(
        x, place(torch.tensor([0.7])), c_crossattn=text, transformer_options=options
    )


def on_cpu(**made: object) -> torch.Tensor:
    model = model_of(**made)
    management.load_models_gpu([model])
    return velocity(model, lambda x: x)


class Weights:
    """The weights of models by their addresses in main memory."""

    def __init__(self, *models: object) -> None:
        for model in models:
            card["bring_bare"](model.model.diffusion_model)
        self.all = {
            parameter.data_ptr(): (f"{i}.{name}", parameter.nbytes)
            for i, model in enumerate(models)
            for name, parameter in model.model.diffusion_model.named_parameters()
            if not isinstance(parameter.data, card["OnCard"])
        }
        self.bytes = sum(size for _, size in self.all.values())

    def came(self, seen: object) -> dict:
        """What a `Card` has seen of them, and of all else."""
        came = {self.all[at][0]: count for at, count in seen.uploads.items() if at in self.all}
        return {
            "weights": len(came),
            "most": max(came.values(), default=0),
            "bytes": sum(count for at, count in seen.bytes.items() if at in self.all),
            "others": sum(count for at, count in seen.bytes.items() if at not in self.all),
        }

    def in_files(self) -> float:
        """The share of their bytes that are a file's own, not a copy of this process's."""
        ranges = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, *_, path = line.split(maxsplit=5)
            if path.endswith((".safetensors", ".gguf")):
                ranges.append([int(end, 16) for end in span.split("-")])
        of_files = (size for at, (_, size) in self.all.items() if any(a <= at < b for a, b in ranges))
        return sum(of_files) / self.bytes


def streamed(expected: torch.Tensor, load: Callable[[object], None], **made: object) -> dict:
    """Two forwards of a model that is brought to the card by `load`."""
    model = model_of(**made)
    weights = Weights(model)
    out: dict = {"bytes": weights.bytes, "kind": type(model).__name__}
    out["LoRAs"] = sorted({type(patch[1]).__name__ for of_one in model.patches.values() for patch in of_one})
    with card["Card"]() as seen:
        load(model)
        for step in ("first", "second"):
            seen.uploads.clear()
            seen.bytes.clear()
            found = velocity(model, lambda x: x.to(DEVICE))
            out[step] = weights.came(seen)
    return out | {"difference": difference(found.held, expected), "in files": weights.in_files()}


def by_layers(model: object) -> None:
    """The host's low-memory loading with no room for weights."""
    model.load(DEVICE, lowvram_model_memory=1)


def paged(model: object) -> None:
    management.load_models_gpu([model])


def switch(room: int) -> dict:
    """A run of both experts, with `room` for weights on the card."""
    card["PagedMemory"].room = room
    high, low = (model_of(f"{RELEASE}{name}_noise_model") for name in ("high", "low"))
    weights = Weights(high, low)
    latent = {"samples": torch.zeros(1, 16, 2, 6, 8)}
    text = [[inputs()[1], {}]]
    with card["Card"]() as seen:
        out = wan["WanMoESampler"].execute(
            model_high=high, model_low=low, positive=text, negative=text, latent_image=latent, preset="custom",
            seed=1, steps=4,
        )  # fmt: skip
    assert torch.isfinite(out.args[0]["samples"]).all()
    management.unload_all_models()
    return weights.came(seen) | {"of": len(weights.all), "in files": weights.in_files(), "all": weights.bytes}


class Large(TorchDispatchMode):
    """Counts the operations that write as many values as a weight has."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **kwargs or {})
        if func._schema.is_mutable or (isinstance(out, torch.Tensor) and not out._is_view()):
            self.count += isinstance(out, torch.Tensor) and out.numel() == self.size
        return out


def low_rank() -> dict:
    """LoRAs of many kinds as the host adds them and as we do: the difference, and how many operations of each."""
    module = importlib.import_module(f"{inside['import_name'](pack)}.comfy_bridge.models.packed.low_rank")
    generator = torch.Generator().manual_seed(2)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    linear, conv = (40, 24), (40, 6, 1, 2, 2)
    up, down, scale = numbers(40, 4), numbers(4, 24), numbers(40, 1)
    cases = {
        "plain": (linear, (up, down, None, None, None, None), None, None),
        "alpha": (linear, (up, down, 2.0, None, None, None), None, None),
        "kernel": (linear, (up[..., None, None], down[..., None, None], 2.0, None, None, None), None, None),
        "part": (linear, (up[:16], down, 2.0, None, None, None), (0, 8, 16), None),
        "function": (linear, (up, down, 2.0, None, None, None), None, lambda change: change.flip(0)),
        "length": (linear, (up, down, 2.0, None, scale, None), None, None),
        "convolution": (conv, (up, down.view(4, *conv[1:]), 2.0, None, None, None), None, None),
    }
    out = {}
    for name, (shape, tensors, offset, function) in cases.items():
        weight, found, counts = numbers(*shape), [], []
        for kind in (comfy.weight_adapter.LoRAAdapter, module.LowRank):
            with Large(tensors[0].shape[0] * weight[0].numel()) as large:
                patch = (0.7, kind(set(), tensors), 1.0, offset, function)
                found.append(comfy.lora.calculate_weight([patch], weight.clone(), name))
            counts.append(large.count)
        out[name] = {"difference": difference(found[1], found[0]), "change": difference(found[0], weight)}
        out[name] |= {"host": counts[0], "ours": counts[1]}
    return out


def others_of_packed(plain: torch.Tensor, with_lora: torch.Tensor) -> dict:
    """Of a paged GGUF model under a LoRA: the model without it after that, what the host makes of it for LoRAs of
    single prompts, and the patcher that a CPU is given."""
    model = model_of("Q8_0.gguf", lora=True)
    bare = model.parent
    delegate = model.get_non_dynamic_delegate()
    delegate.model.diffusion_model.config = model.model.diffusion_model.config
    Weights(model, delegate)
    out = {"delegate": type(delegate).__name__}
    with card["Card"]():
        for name, one, load, expected in (
            ("with", model, paged, with_lora),
            ("without", bare, paged, plain),
            ("delegate's", delegate, by_layers, with_lora),
        ):
            load(one)
            out[name] = difference(velocity(one, lambda x: x.to(DEVICE)).held, expected)
    cpu = torch.device("cpu")
    return out | {"on CPU": type(type(model)(model.model, cpu, cpu)).__name__}


CASES = {
    "plain": {"file": f"{RELEASE}low_noise_model"},
    "LoRA": {"file": f"{RELEASE}low_noise_model", "lora": True},
    "NAG": {"file": f"{RELEASE}low_noise_model", "nag": True},
    "Q8_0": {"file": "Q8_0.gguf"},
    "Q8_0 LoRA": {"file": "Q8_0.gguf", "lora": True},
    "Q8_0 host's LoRA": {"file": "Q8_0.gguf", "by_host": True},
    "Q4_K LoRA": {"file": "Q4_K.gguf", "lora": True},
}


@torch.no_grad()
def main() -> dict:
    expected = {name: on_cpu(**made) for name, made in CASES.items()}
    management.unload_all_models()
    card["pretend_device"](management, 1 << 40)
    out: dict = {"low rank": low_rank(), "NAG": difference(expected["NAG"], expected["plain"])}
    out["by layers"] = {name: streamed(expected[name], by_layers, **made) for name, made in CASES.items()}
    if not hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
        return out
    card["pretend"](0)
    for kind, room in (("paged", 1 << 30), ("paged, little room", 1 << 20)):
        card["PagedMemory"].room = room
        out[kind] = {name: streamed(expected[name], paged, **made) for name, made in CASES.items()}
        management.unload_all_models()
    out["others"] = others_of_packed(expected["Q8_0"], expected["Q8_0 LoRA"])
    one = out["paged"]["plain"]["bytes"]
    out["switch"] = {"both fit": switch(4 * one), "one fits": switch(int(1.3 * one))}
    return out


sys.stdout.write(json.dumps(main()) + "\n")
