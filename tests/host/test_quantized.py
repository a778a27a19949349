"""Files of quantised weights: the host's own layers where it has them, unpacked to the same values elsewhere."""

import json

import pytest
import torch
from forked import run_script
from formats import write_scaled_fp8
from safetensors.torch import save_file

from wan_models.checkpoints.reader import open_model
from wan_models.tools.quantize import PACKERS, quantized

KINDS = ("older", *PACKERS)
# formats whose products the host makes of inputs rounded to 8 or 4 bits, on a CPU too; a rounding may fall either way
ROUNDED = {"int8_tensorwise": 5e-3, "asym_w4a8_int8": 5e-3, "convrot_w4a4": 0.1}


def write(folder, name, weights, kind):
    """A model in a format, and the values that it has as float32."""
    file = folder / f"{name}.safetensors"
    if kind == "older":
        write_scaled_fp8(file, weights)
    else:
        state = quantized(weights, kind, torch.float32)
        if kind == "float8_e4m3fn":
            state["blocks.0.ffn.0.input_scale"] = torch.tensor(0.5)
        if kind == "nvfp4":  # notes in the metadata instead
            notes = {key: state.pop(key) for key in [key for key in state if key.endswith("comfy_quant")]}
            layers = {key.rpartition(".")[0]: {"format": kind} for key in notes}
            save_file(state, file, {"_quantization_metadata": json.dumps({"layers": layers})})
        else:
            save_file(state, file)
    model = open_model(file)
    unpacked = {key: model.unpacked(key).float().contiguous() for key in model}
    save_file(unpacked, folder / f"{name} unpacked.safetensors")


@pytest.fixture(scope="module")
def results(comfyui, base, tmp_path_factory):
    own = tmp_path_factory.mktemp("quantized")
    models = own / "models"
    for name in ("diffusion_models", "text_encoders", "wan"):
        (models / name).mkdir(parents=True)
    (models / "loras").symlink_to(base / "models" / "loras", target_is_directory=True)
    release = base / "models" / "wan" / "T2V-A14B"
    (models / "wan" / "T2V-A14B").symlink_to(release, target_is_directory=True)
    dit = {key: weight.clone() for key, weight in open_model(release / "low_noise_model").items()}
    t5 = {
        key: weight.clone() for key, weight in open_model(release / "models_t5_umt5-xxl-enc-bf16.pth").items()
    }
    for kind in KINDS:
        write(models / "diffusion_models", kind, dit, kind)
        write(models / "text_encoders", f"t5 {kind}", t5, kind)

    plain = {
        key: weight.to(torch.float8_e4m3fn) if weight.dim() == 2 else weight for key, weight in dit.items()
    }
    save_file(plain, models / "diffusion_models" / "plain.safetensors")
    return run_script("quantized_script.py", comfyui, own)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_hold_the_values_of_the_file(results, kind):
    found = results["models"][kind]
    assert found["worst"] < 1e-7
    assert found["size"] < 0.7  # of float32; a third of this model is not quantised
    assert found["LoRA"] > 0.05
    rounded = ROUNDED.get(kind, 1e-6) if found["native"] else 1e-6
    assert found["unpacked"] < rounded


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_those_of_a_host_that_has_them(results, kind):
    found = results["models"][kind]
    known = results["formats of host"]
    assert found["native"] == (("float8_e4m3fn" if kind == "older" else kind) in known)
    assert found["told"] == (0 if found["native"] else 1)
    if not found["native"]:
        return
    rounded = ROUNDED.get(kind, 1e-5)
    assert found["worst of host"] == 0
    assert found["host"] < rounded
    assert found["host with LoRA"] < rounded
    assert found["worst of saved"] == 0
    assert found["saved"] < 1e-6
    assert found["input scale"] == (0.5 if kind == "float8_e4m3fn" else None)
    assert found["weights only"] == (kind == "older")


@pytest.mark.parametrize("kind", KINDS)
def test_text_encoders(results, kind):
    found = results["encoders"][kind]
    # bfloat16, in which the host rounds scales too; inputs of 4 bits leave little of random weights
    rounded = {"convrot_w4a4": 0.5}.get(kind, 0.05)
    assert found["unpacked"] < (rounded if results["models"][kind]["native"] else 1e-5)


@pytest.mark.parametrize("kind", ["plain", "float8_e4m3fn"])
def test_products_of_8_bit_floats_are_those_of_the_host(results, kind):
    found = results["products"][kind]
    if kind != "plain" and not results["models"][kind]["native"]:
        assert found["most"] < 1e-6
    else:
        assert found["host"] < 1e-6
        assert found["least"] > 1e-3 and found["most"] < 0.1
