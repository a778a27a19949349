"""The one place that knows the node WanPromptExtend."""

import argparse

from .graph import Graph


def extend_prompt(graph: Graph, args: argparse.Namespace) -> None:
    """Puts WanPromptExtend before the text encoder; a server without that node refuses the workflow by its name."""
    encode = graph.only("WanT5Encode")
    inputs = {
        "prompt": encode["positive"],
        "task": args.task,
        "method": args.prompt_extend_method,
        "model": args.prompt_extend_model or "",
        "language": args.prompt_extend_target_lang,
        "seed": args.base_seed,
    }
    if graph.of("LoadImage"):
        inputs["image"] = (graph.of("LoadImage")[0], 0)
    encode["positive"] = [graph.add("prompt", "WanPromptExtend", **inputs), 0]
