"""Costs of networks at real sizes, counted without running them: FLOPs, bytes moved, most memory beside the weights.

Prints a table, ours beside the host's and diffusers'. `--write` puts it into docs/performance.md, and keeps our numbers
where tests/bench/test_accounting.py holds later ones against them.
"""

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist

from bench.counting import Cost, Counter, empty
from wan_models import rope
from wan_models.attention import sdpa
from wan_models.config import VAE_2_2, DiTConfig, DrivenConfig, FaceConfig, SpeechConfig, T5Config, VAEConfig
from wan_models.distributed.sequence_parallel import Ulysses
from wan_models.dit.passes import PLAIN, Passes
from wan_models.models import build_network

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ROOT / "bench" / "accounting.json"
PAGE = ROOT / "docs" / "performance.md"

DTYPE = torch.bfloat16
MODELS = {
    "T2V-A14B": DiTConfig(),
    "I2V-A14B": DiTConfig("i2v", in_dim=36),
    "TI2V-5B": DiTConfig("ti2v", dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_dim=48, out_dim=48),
    "S2V-14B": DiTConfig("s2v", speech=SpeechConfig()),
    "Animate-14B": DiTConfig("animate", in_dim=36, image_dim=1280, face=FaceConfig()),
    "Animate-2-14B": DiTConfig("animate2", in_dim=36, image_dim=1280, driven=DrivenConfig()),
}
VAES = {"VAE 2.1": VAEConfig(), "VAE 2.2": VAE_2_2}
TEXT_ENCODER = "UMT5-XXL"
# height, width and frames
SIZES = {"480p": (480, 832, 81), "720p": (720, 1280, 81), "704p": (704, 1280, 121)}
IN_BANDS = "decode in two bands"


@dataclass(frozen=True)
class Case:
    """A task of a network at a size: "block" and "forward" of transformers, "decode", `IN_BANDS` and "encode" of
    autoencoders.

    is_fused: with the passes of blocks compiled, see wan_models/dit/passes.py."""

    network: str
    task: str
    size: str
    is_fused: bool = False

    @property
    def name(self) -> str:
        return f"{self.network} {self.task} {self.size}{', fused' if self.is_fused else ''}"

    @property
    def latent(self) -> tuple[int, int, int]:
        """Latent frames, height and width."""
        height, width, frames = SIZES[self.size]
        stride = 16 if self.network in ("TI2V-5B", "VAE 2.2") else 8
        return (frames + 3) // 4, height // stride, width // stride


def cases() -> list[Case]:
    """Everything that is counted."""

    def sized(name: str, *tasks: str) -> list[Case]:
        sizes = ("704p",) if name in ("TI2V-5B", "VAE 2.2") else ("480p", "720p")
        return [Case(name, task, size) for size in sizes for task in tasks]

    transformers = [case for name in MODELS for case in sized(name, "block", "forward")]
    transformers += [replace(case, is_fused=True) for case in transformers if case.task == "block"]
    autoencoders = [case for name in VAES for case in sized(name, "decode", IN_BANDS, "encode")]
    return [*transformers, Case(TEXT_ENCODER, "encode", "512 tokens"), *autoencoders]


def count(run, layers=()) -> Cost:
    """Cost of a call; layers: those that are not run again for what costs the same, see `Counter.as_before`."""
    rope.clear()  # tables that a forward makes belong to it
    with torch.inference_mode(), Counter() as counter:
        for layer in layers:
            layer.forward = counter.as_before(layer.forward)
        run()
    rope.clear()
    return counter.cost


def ours(case: Case) -> Cost:
    """Cost of our network."""
    if case.network in MODELS:
        return transformer(case.network, case.latent, is_fused=case.is_fused)[case.task]
    if case.network in VAES:
        return autoencoder(case)
    network = build_network(T5Config(), dtype=DTYPE)
    ids = torch.empty(1, 512, dtype=torch.int64, device="meta")
    return count(lambda: network(ids, ids))


@cache
def transformer(
    name: str,
    latent: tuple[int, int, int],
    dtype: torch.dtype = DTYPE,
    is_fused: bool = False,
    processes: dist.ProcessGroup | None = None,
    is_first: bool = False,
) -> dict[str, Cost]:
    """Costs of a forward and of its first block; the memory is that of the forward. is_fused: with passes that are one
    kernel each. processes: that share the tokens, of which this is one. is_first: the memory
    alone, of a clip's first step, in which Animate-2 takes the driving video through its blocks."""
    config = replace(MODELS[name], num_layers=2) if is_first else MODELS[name]
    network = build_network(config, dtype=dtype)
    x, context = empty(1, config.in_dim, *latent), empty(1, config.text_len, config.text_dim)
    # TI2V-5B is given the timestep of each latent frame
    t = torch.empty(1, latent[0] if config.family == "ti2v" else 1, device="meta")
    block = Cost()

    def run_block(index, module, x, **inputs):
        before = replace(counter.cost)
        if index == 0 or is_first:
            x = module(x, **inputs)
            block.flops, block.moved = counter.cost.flops - before.flops, counter.cost.moved - before.moved
        else:  # blocks are alike
            counter.cost.flops, counter.cost.moved = before.flops + block.flops, before.moved + block.moved
        return x

    rope.clear()
    with torch.inference_mode(), Counter() as counter:
        if is_fused:
            network.use(Passes(*map(counter.as_one, vars(PLAIN).values())))
        if processes is not None:
            network.sequence_parallel = Ulysses(processes)
        conditions, image = _conditions(config, network, latent, is_first)
        network(x, t, context, image=image, conditions=conditions, attention=sdpa, run_block=run_block)
    rope.clear()
    block.peak = counter.cost.peak
    return {"forward": counter.cost, "block": block}


def _conditions(config, network, latent, is_first):
    """Conditions of a clip with all inputs of the family, made as before its first step, and CLIP features."""
    frames = latent[0]
    if config.speech:
        speech = config.speech
        audio = empty(1, speech.audio_layers, speech.audio_dim, 4 * frames)
        inputs = network.inputs_class(
            reference=empty(1, config.out_dim, 1, *latent[1:]),
            motion=empty(1, config.out_dim, 19, *latent[1:]),
            audio=audio,
        )
        # whether a pose is empty depends on its values, which are not there
        return replace(network.prepare(inputs, latent), pose=empty(1, config.out_dim, *latent)), None
    if config.face:
        inputs = network.inputs_class(
            pose=empty(1, config.out_dim, frames - 1, *latent[1:]),
            faces=empty(1, 3, 4 * (frames - 2) + 1, config.face.size, config.face.size),
        )
        return network.prepare(inputs, latent), empty(1, 257, config.image_dim)
    if config.driven:
        inputs = network.inputs_class(
            driving=empty(1, config.out_dim, frames - 1, *latent[1:]),
            driving_text=empty(1, config.text_len, config.text_dim),
            keep="off" if is_first else "gpu",
        )
        clip = network.prepare(inputs, latent)
        if is_first:
            return clip, empty(1, 257, config.image_dim)
        parallel = network.sequence_parallel
        width = config.dim if parallel is None else config.dim // parallel.group.size()
        shape = 1, (frames - 1) * latent[1] * latent[2] // 4, width
        pair = empty(*shape, dtype=network.dtype), empty(*shape, dtype=network.dtype)
        for index in range(
            config.num_layers
        ):  # a step after the first; those of one block are here at a time
            clip.kept.put(index, pair)
        return clip, empty(1, 257, config.image_dim)
    return None, None


@cache
def autoencoder(case: Case) -> Cost:
    config = VAES[case.network]
    network = build_network(config, dtype=DTYPE)
    height, width, frames = SIZES[case.size]
    if case.task in ("decode", IN_BANDS):
        z = empty(1, config.z_dim, *case.latent)
        layers = [*network.decoder.middle, *network.decoder.upsamples]
        return count(
            lambda: network.decode(z) if case.task == "decode" else network.decode_in_bands(z, 2), layers
        )
    video = empty(1, 3, frames, height, width)
    return count(lambda: network.encode(video), [*network.encoder.downsamples, *network.encoder.middle])


def table(rows: list[list[str]]) -> str:
    """A table of Markdown, the first row its head; all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def main() -> None:
    from bench.accounting_peers import peers

    others = ["ComfyUI", "diffusers"]
    rows = [["", "PFLOP", "GB moved: ours", *others, "GB at most: ours", *others]]
    numbers = {}
    for case in cases():
        cost, theirs = ours(case), peers(case)
        numbers[case.name] = asdict(cost)
        moved = [cost.moved, *(other and other.moved for other in theirs)]
        peak = [cost.peak, *(other and other.peak for other in theirs)]
        figures = [f"{cost.flops / 1e15:.3f}"]
        figures += [f"{n / 1e9:,.0f}" if n else "" for n in moved] + [
            f"{n / 1e9:.2f}" if n else "" for n in peak
        ]
        rows.append([case.name, *figures])
    print(text := table(rows))
    if "--write" in sys.argv:
        NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
        page = PAGE.read_text()
        PAGE.write_text(re.sub(r"\n\|  \|.*?\n\n", lambda _: f"\n{text}\n\n", page, count=1, flags=re.DOTALL))


if __name__ == "__main__":
    main()
