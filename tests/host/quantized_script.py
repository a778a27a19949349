"""Runs inside a ComfyUI's own Python process: `quantized_script.py COMFYUI PACK BASE`; prints one JSON object.

Files of quantised weights under our loaders: against the host's loader on the same file where it has layers for the
format, and against the same values from a float32 file. Numbers are relative L2 differences.
"""

import inspect
import json
import logging
import runpy
import sys
from pathlib import Path

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
comfyui, pack, base = map(Path, sys.argv[1:4])
wan = inside["enter"](comfyui, pack, base)

import comfy.cli_args  # noqa: E402
import comfy.model_management as management  # noqa: E402
import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_model_merging  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import nodes as host_nodes  # noqa: E402

torch.set_num_threads(1)
logging.getLogger().setLevel(logging.INFO)
PREFIX = "diffusion_model."


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def ours(file: str) -> object:
    return wan["WanDiTLoader"].execute(file).args[0]


def theirs(file: str) -> object:
    return host_nodes.UNETLoader().load_unet(file, "default")[0]


def with_lora(model: object) -> object:
    return host_nodes.LoraLoaderModelOnly().load_lora_model_only(model, "lora.safetensors", 0.7)[0]


def run(model: object) -> torch.Tensor:
    """One forward as the host loads and calls a model."""
    management.load_models_gpu([model])
    generator = torch.Generator().manual_seed(1)
    x, context = (
        torch.randn(1, 16, 2, 6, 8, generator=generator),
        torch.randn(1, 512, 4096, generator=generator),
    )
    options = model.model_options["transformer_options"]
    return model.model.apply_model(x, torch.tensor([0.7]), c_crossattn=context, transformer_options=options)


def aligned(model: object) -> object:
    """The model with its plain weights in memory of their own: a CPU has other kernels for other addresses, and one
    last place may flip the rounding of an input to 8 bits."""
    for weight in model.model.diffusion_model.parameters():
        if type(weight.data) is torch.Tensor:
            weight.data = weight.data.clone()
    return model


def values(model: object, key: str) -> torch.Tensor:
    """A weight as plain numbers."""
    weight = model.get_model_object(PREFIX + key)
    return weight.dequantize() if hasattr(weight, "dequantize") else weight.clone()


class Told(logging.Handler):
    """Counts what the pack says of layers that the host does not have."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "unpacked for each use" in record.getMessage()


def saved(model: object, kind: str) -> str:
    """The name of a file that ModelSave writes."""
    nodes_model_merging.ModelSave().save(model, f"save_{kind}/x")
    (file,) = (base / "output" / f"save_{kind}").iterdir()
    file.rename(base / "models" / "diffusion_models" / f"{kind} saved.safetensors")
    return f"{kind} saved.safetensors"


def of_model(kind: str) -> dict:
    """A diffusion model. "worst": of the layers that are stored quantised."""
    file, plain = (
        f"{kind}.safetensors",
        load_file(base / f"models/diffusion_models/{kind} unpacked.safetensors"),
    )
    keys = [name for name in plain if name.startswith("blocks.") and plain[name].dim() == 2]
    told = Told()
    logging.getLogger().addHandler(told)
    model = ours(file)
    logging.getLogger().removeHandler(told)
    layer = model.get_model_object(f"{PREFIX}blocks.0.ffn.0")
    found = {
        "native": type(layer.weight.data).__name__ == "QuantizedTensor",
        "told": told.count,
        "worst": max(difference(values(model, key), plain[key]) for key in keys),
        "size": model.model_size() / sum(tensor.nbytes for tensor in plain.values()),
        "unpacked": difference(run(model), run(ours(f"{kind} unpacked.safetensors"))),
        "LoRA": difference(run(with_lora(ours(file))), run(model)),
    }
    if found["native"]:
        host = theirs(file)
        found["worst of host"] = max(difference(values(model, key), values(host, key)) for key in keys)
        found["host"] = difference(run(model), run(host))
        found["host with LoRA"] = difference(run(with_lora(ours(file))), run(with_lora(theirs(file))))
        again = ours(saved(ours(file), kind))
        found["worst of saved"] = max(difference(values(again, key), values(model, key)) for key in keys)
        found["saved"] = difference(run(aligned(again)), run(aligned(ours(file))))
        scale = getattr(layer, "input_scale", None)
        found["input scale"] = None if scale is None else float(scale)
        found["weights only"] = layer._full_precision_mm_config
    return found


def of_text_encoder(kind: str) -> dict:
    def encode(file: str) -> torch.Tensor:
        clip = wan["WanT5Loader"].execute(file, "bf16" if "unpacked" in file else "default").args[0]
        return wan["WanT5Encode"].execute(clip, "two cats", "blurry").args[0][0][0]

    return {
        "unpacked": difference(encode(f"t5 {kind}.safetensors"), encode(f"t5 {kind} unpacked.safetensors"))
    }


def in_8_bits() -> dict:
    """Layers with products of 8-bit floats, as on a card that has them: of weights without scales, and with those of
    inputs. One by one, as each rounding changes those that follow."""
    management.supports_fp8_compute = lambda *args, **options: True
    comfy.cli_args.args.fast.add(comfy.cli_args.PerformanceFeature.Fp8MatrixMultiplication)
    out = {}
    for kind in ("plain", "float8_e4m3fn"):
        host, changes = [], []
        models = ours(f"{kind}.safetensors"), theirs(f"{kind}.safetensors")
        for leaf in ("blocks.0.self_attn.q", "blocks.0.ffn.0", "blocks.1.ffn.2"):
            layers = [model.get_model_object(PREFIX + leaf) for model in models]
            x = torch.randn(1, 9, layers[0].in_features, generator=torch.Generator().manual_seed(2))
            # less the bias, which the host rounds to 8 bits too
            results = [layer(x.clone()) - layer(torch.zeros_like(x)) for layer in layers]
            host.append(difference(*results))
            changes.append(difference(results[0], x @ values(models[0], f"{leaf}.weight").float().mT))
        out[kind] = {"host": max(host), "least": min(changes), "most": max(changes)}
    return out


@torch.inference_mode()
def main() -> dict:
    files = sorted((base / "models" / "diffusion_models").iterdir())
    kinds = [file.stem for file in files if not file.stem.endswith(("unpacked", "plain"))]
    models = {kind: of_model(kind) for kind in kinds}
    encoders = {kind: of_text_encoder(kind) for kind in kinds}
    products = in_8_bits()
    management.unload_all_models()
    known = "disabled" in inspect.signature(comfy.ops.mixed_precision_ops).parameters
    formats = list(comfy.ops.QUANT_ALGOS) if known else []
    return {"models": models, "encoders": encoders, "products": products, "formats of host": formats}


print(json.dumps(main()))  # noqa: T201
