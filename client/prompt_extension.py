"""The one place that knows the node WanPromptExtend."""

import argparse

from .graph import Graph

NODE = "extended prompt"
TASKS = {"t2v-A14B": "T2V", "i2v-A14B": "I2V", "ti2v-5B": "TI2V"}
"""The node's name of each task that has a system prompt, here as officially."""
ENDPOINT = "OpenAI-compatible endpoint"
"""The node's name for a server, in the place of a local model; DashScope is its default."""
# official short names, without and with an image: folders of models/LLM, named as they are downloaded
_LOCAL = {
    "Qwen2.5_3B": "Qwen2.5-3B-Instruct",
    "Qwen2.5_7B": "Qwen2.5-7B-Instruct",
    "Qwen2.5_14B": "Qwen2.5-14B-Instruct",
    "QwenVL2.5_3B": "Qwen2.5-VL-3B-Instruct",
    "QwenVL2.5_7B": "Qwen2.5-VL-7B-Instruct",
}


def extend_prompt(graph: Graph, args: argparse.Namespace) -> None:
    """Puts WanPromptExtend before the text encoder; a server without that node refuses the workflow by its name."""
    encode, image = graph.only("WanT5Encode"), graph.of("LoadImage")
    inputs = {
        "prompt": encode["positive"],
        "task": TASKS[args.task],
        "language": args.prompt_extend_target_lang,
        "seed": args.base_seed,
    }
    if image:
        inputs["image"] = (image[0], 0)
    if args.prompt_extend_method == "dashscope":
        name = args.prompt_extend_model or ("qwen-vl-max" if image else "qwen-plus")
        inputs |= {"model": ENDPOINT, "endpoint_model": name}
    else:
        name = args.prompt_extend_model or ("QwenVL2.5_7B" if image else "Qwen2.5_14B")
        inputs["model"] = _LOCAL.get(
            name, name.rstrip("/").split("/")[-1]
        )  # of a path or hub name the last part
    encode["positive"] = [graph.add(NODE, "WanPromptExtend", **inputs), 0]
