"""Differences between hosts, one probe each: features are looked for, versions never compared."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import latent_preview
import torch
from comfy_api.latest._input_impl import video_types
from comfy_execution import graph_utils
from torch import nn


def patcher_class() -> type:
    """The patcher the host uses for its own models: the dynamic-VRAM one where the host has it and it is on."""
    return getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def make_patcher(module: nn.Module, load_device: Any, offload_device: Any, kind: type | None = None) -> Any:
    """A patcher around `module`, to be made before its weights are loaded; `kind` instead of the host's own."""
    return (kind or patcher_class())(module, load_device=load_device, offload_device=offload_device)


def remember_origin(patcher: Any, load: Callable, *args: Any) -> None:
    """Tells a dynamic-VRAM host how to make this patcher again; `load` must take `disable_dynamic=`."""
    if hasattr(patcher, "cached_patcher_init"):
        patcher.cached_patcher_init = (load, args)


def archive_dtypes(module: nn.Module) -> None:
    """Lets a dynamic-VRAM host know the dtypes a module is meant to have; nothing elsewhere."""
    archive = getattr(comfy.model_management, "archive_model_dtypes", None)
    if archive is not None:
        archive(module)


def set_inference_dtype(model_config: Any, dtype: Any, manual_cast_dtype: Any, device: Any) -> None:
    """Sets the dtypes of a model config; newer hosts also ask for the device the model will run on."""
    try:
        model_config.set_inference_dtype(dtype, manual_cast_dtype, device=device)
    except TypeError:
        model_config.set_inference_dtype(dtype, manual_cast_dtype)


def inference_dtype(model: Any) -> Any:
    """The dtype that a model of the host is about to compute in; newer hosts have a name for it."""
    if hasattr(model, "get_dtype_inference"):
        return model.get_dtype_inference()
    return model.manual_cast_dtype or model.get_dtype()


@contextmanager
def unlogged(text: str) -> Iterator[None]:
    """Leaves a line that has `text` in it, and would mislead users, out of the host's log; every other one is there."""
    here = threading.get_ident()

    def is_shown(record: logging.LogRecord) -> bool:
        return record.thread != here or text not in record.getMessage()

    logging.root.addFilter(is_shown)
    try:
        yield
    finally:
        logging.root.removeFilter(is_shown)


def prompt_server() -> Any:
    """The host's server, or None where the host is used without one."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def page() -> str | None:
    """The client that queued what is running, where it listens; else None."""
    server = prompt_server()
    client = getattr(server, "client_id", None)
    return client if client in getattr(server, "sockets", {}) else None


def running_node() -> str | None:
    """Id of the node that is running; inside subgraphs that of each of them, joined by colons."""
    contexts = sys.modules.get("comfy_execution.utils")
    executing = getattr(contexts, "get_executing_context", None)
    context = executing() if executing is not None else None
    return getattr(context or prompt_server(), "node_id" if context else "last_node_id", None)


def cuts_conditioning() -> bool:
    """Whether the host cuts the conditioning of a video to its context windows; older ones cut the latent alone."""
    return hasattr(comfy.model_base.BaseModel, "resize_cond_for_context_window")


def preview_method() -> str:
    """The user's choice of previews (--preview-method): none, auto, latent2rgb or taesd."""
    method = getattr(getattr(latent_preview, "args", None), "preview_method", None)
    return getattr(method, "value", method) or "none"


def film_colours() -> tuple[int | None, Callable[[Any], None]]:
    """The matrix from RGB of the films that the host saves, and what notes that on a stream or picture. Older hosts
    leave it to the library (None) and note nothing."""
    note = getattr(video_types, "set_video_color_properties", None)
    if note is None:
        return None, lambda target: None
    return video_types.BT709_NCL, lambda target: note(target, "sRGB")


def synchronize(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    wait = getattr(getattr(torch, device.type, None), "synchronize", None)
    if wait is not None:
        wait()


def progress_text(node_id: str | None) -> Callable[[str], None]:
    """Shows a line of text on a running node, where there is a page that can."""
    server = prompt_server()
    if node_id is None or not hasattr(server, "send_progress_text"):
        return lambda text: None
    return lambda text: server.send_progress_text(text, node_id)


def nothing(reason: str) -> Any:
    """Output of a node that has nothing to give: a node that would take it is not run, and the page says why."""
    return graph_utils.ExecutionBlocker(reason)
