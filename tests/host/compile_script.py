"""Runs inside a ComfyUI's own Python process: `compile_script.py COMFYUI PACK BASE BACKEND NAME...`; prints one JSON
object.

Each named model is compiled by what users have for it, and sampled with other steps, experts, prompts and LoRA
strengths than it was compiled for. Told are the graphs that torch has made of it by then, the places where one broke
off, and how far the result is from the plain model's. With KJNODES set to the folder of that pack, its nodes are tried.
"""

import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
base, backend, names = Path(sys.argv[3]), sys.argv[4], sys.argv[5:]
# on a CPU the host's own choice of attention reads files, in which every compiler breaks off
nodes = inside["enter"](*map(Path, sys.argv[1:4]), ("--cpu", "--use-pytorch-cross-attention"))

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_api.torch_helpers import set_torch_compile_wrapper  # noqa: E402
from comfy_extras.nodes_torch_compile import TorchCompileModel  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402

FIRST, MORE = torch.tensor([1.0, 0.75]), torch.tensor([0.9, 0.5, 0.25, 0.0])
FRAMES, HEIGHT, WIDTH = 3, 8, 8
# rows of text: of the official 512, most of the time would go into projecting them
TEXT = 16
generator = torch.Generator().manual_seed(int(os.environ.get("WAN22_TEST_SEED", "3")))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


def load(name: str) -> object:
    (file,) = (base / "models" / "diffusion_models").glob(f"compiled_{name}.*")
    model = nodes["WanDiTLoader"].execute(file.name).args[0]
    network = model.model.diffusion_model
    network.config = replace(network.config, text_len=TEXT)
    return model


def prompt(family: str) -> list:
    """A prompt with all that the family is conditioned on."""
    size = FRAMES, HEIGHT, WIDTH
    image = {"concat_latent_image": noise(1, 16, *size), "concat_mask": torch.ones(1, 1, *size)}
    seen = {"clip_vision_output": SimpleNamespace(penultimate_hidden_states=noise(1, 257, 160))}
    pose = {"pose_video_latent": noise(1, 16, FRAMES - 1, HEIGHT, WIDTH)}
    values = {
        "i2v": image,
        "s2v": {
            "reference_latents": [noise(1, 16, 1, HEIGHT, WIDTH)],
            "reference_motion": noise(1, 16, 19, HEIGHT, WIDTH),
            "control_video": noise(1, 16, *size),
            "audio_embed": noise(1, 4, 32, FRAMES * 4),
        },
        "animate": {**image, **seen, **pose, "face_video_pixels": noise(1, 3, 1, 512, 512)},
        "animate2": {**image, **seen, **pose, "cross_attn_pose": noise(1, TEXT, 4096)},
    }
    return [[noise(1, TEXT, 4096) / 8, values.get(family, {})]]


class Run:
    """One model, compiled, and what has come of it so far."""

    def __init__(self, name: str) -> None:
        torch._dynamo.reset()
        counters.clear()
        self.model = load(name)
        self.family = self.model.model.diffusion_model.config.family
        self.latent = noise(1, 48 if self.family == "ti2v" else 16, FRAMES, HEIGHT, WIDTH)
        self.prompts = prompt(self.family), prompt(self.family)
        self.graphs: dict[str, int] = {}

    def sample(self, model: object, sigmas: torch.Tensor, prompts: tuple | None = None) -> torch.Tensor:
        conditioning = (*(prompts or self.prompts), torch.zeros_like(self.latent))
        sampler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(model, self.latent, 3.0, sampler, sigmas, *conditioning, seed=1)

    def note(self, what: str, model: object, *given: object) -> torch.Tensor:
        """Samples, and keeps the number of graphs that there are after it."""
        out = self.sample(model, *given)
        self.graphs[what] = counters["stats"]["unique_graphs"]
        return out


def by_host(model: object) -> object:
    return TorchCompileModel.execute(model, backend).args[0]


def by_blocks(model: object) -> object:
    model = model.clone()
    count = len(model.get_model_object("diffusion_model").blocks)
    keys = [f"diffusion_model.blocks.{index}" for index in range(count)]
    set_torch_compile_wrapper(model=model, backend=backend, keys=keys)
    return model


def kjnodes() -> Iterator[tuple[str, object]]:
    folder = os.environ.get("KJNODES")
    if not folder:
        return
    import server  # noqa: F401  the pack expects the host's own to be there

    kinds = inside["load_pack"](Path(folder)).NODE_CLASS_MAPPINGS
    for blocks in (True, False):
        settings = {
            "TorchCompileModelWanVideoV2": (backend, False, "default", False, 64, blocks),
            "TorchCompileModelAdvanced": (backend, False, "default", "false", blocks, 64, False),
        }
        for name, given in settings.items():
            patch = kinds[name]().patch
            yield f"{name}, blocks {blocks}", lambda model, patch=patch, given=given: patch(model, *given)[0]


def with_lora(model: object, strength: float) -> object:
    model, chance = model.clone(), torch.Generator().manual_seed(1)
    rank = [torch.randn(256, 4, generator=chance) / 8 for _ in range(2)]
    change = comfy.weight_adapter.LoRAAdapter(set(), (rank[0], rank[1].T.contiguous(), 4.0, None, None, None))
    keys = [f"diffusion_model.blocks.{index}.self_attn.q.weight" for index in range(2)]
    model.add_patches(dict.fromkeys(keys, change), strength)
    return model


def with_patches(model: object, then: Callable = lambda args: None) -> object:
    """Patches around blocks, in which torch would break off; `then` is called after each block."""
    model = model.clone()

    def replaced(args: dict, extra: dict) -> dict:
        assert not torch.compiler.is_compiling()
        return {"img": extra["original_block"](args)["img"] * float(args["img"].mean().item() > -9)}

    def after(args: dict) -> dict:
        assert not torch.compiler.is_compiling()
        then(args)
        return {"img": args["img"] * float(args["img"].mean().item() > -9)}

    model.set_model_patch_replace(replaced, "dit", "double_block", 1)
    model.set_model_double_block_patch(after)
    return model


def is_interrupted(run: Run, model: object) -> bool:
    """Whether Cancel between the blocks of a compiled model is heard before the next block."""
    seen = []

    def cancel(args: dict) -> None:
        seen.append(args["block_index"])
        comfy.model_management.interrupt_current_processing()

    try:
        run.sample(with_patches(model, cancel), FIRST)
    except comfy.model_management.InterruptProcessingException:
        return seen == [0]
    return False


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm())


def told(name: str) -> dict:
    run = Run(name)
    other = load("low") if name == "high" else None
    plain = run.sample(run.model, MORE)
    model = by_host(run.model)
    run.note("first", model, FIRST)
    out = {"differs": difference(run.note("steps", model, MORE), plain)}
    run.note("prompts", model, FIRST, (prompt(run.family), prompt(run.family)))
    for strength in (0.5, -0.25, 1.0):
        changed = with_lora(model, strength)
        out[f"LoRA {strength}"] = difference(run.note(f"LoRA {strength}", changed, MORE), plain)
    if other is not None:
        run.note("other expert", by_host(other), FIRST)
    run.note("by blocks", by_blocks(run.model), FIRST)
    for pack, change in kjnodes():
        run.note(pack, change(run.model), FIRST)
    if backend == "eager":
        run.sample(with_patches(model), FIRST)  # whose graph is that of the next line
        out["is interrupted"] = is_interrupted(run, model)
    breaks = {reason[:200]: count for reason, count in counters["graph_break"].items()}
    return out | {"graphs": run.graphs, "breaks": breaks}


def main() -> dict:
    with torch.inference_mode():
        return {name: told(name) for name in names}


sys.stdout.write(json.dumps(main()) + "\n")
