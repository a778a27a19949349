"""An image-to-video release in a host's folders, pictures to begin with, and the workflow that tests change."""

import torch
from graphs import base_graph, node, sampler, save
from PIL import Image

from demo.tiny_release import write_release

I2V = "wan/I2V-A14B/"
AREA = {"width": 64, "height": 48, "frames": 9}


def write_i2v_files(base):
    """The release, and pictures of several kinds in the host's input folder."""
    write_release(base / "models" / "wan" / "I2V-A14B", seed=20, name="I2V-A14B")
    (base / "input").mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(4)

    def picture(*shape):
        return Image.fromarray(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).numpy())

    picture(37, 91, 3).save(base / "input" / "start.png")
    picture(50, 50, 3).save(base / "input" / "end.png")
    picture(37, 91, 4).save(base / "input" / "alpha.png")
    picture(1, 1, 3).save(base / "input" / "dot.png")


def pixels(folders, name):
    with Image.open(folders / "input" / name) as picture:
        data = torch.tensor(list(picture.convert("RGB").getdata()), dtype=torch.float32)
        return data.view(1, picture.height, picture.width, 3) / 255


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def i2v_graph(start="start.png", end=None, seed=7, **condition):
    graph = base_graph()
    for expert in ("high", "low"):
        graph[expert] = node("WanDiTLoader", model_name=f"{I2V}{expert}_noise_model")
    graph["vae"] = node("WanVAELoader", vae_name=f"{I2V}Wan2.1_VAE.pth")
    inputs = {}
    for name, file in (("start_image", start), ("end_image", end)):
        if file:
            graph[name] = node("LoadImage", image=file)
            inputs[name] = (name, 0)
    graph["image"] = node(
        "WanI2VCondition",
        positive=("text", 0),
        negative=("text", 1),
        vae=("vae", 0),
        **inputs,
        **(AREA | condition),
    )
    graph["sample"] = sampler(seed, latent=("image", 2), steps=8, shift=5.0, boundary=0.9)
    graph["sample"]["inputs"] |= {"positive": ["image", 0], "negative": ["image", 1]}
    graph["save"] = save()
    return graph
