"""Wan2.2 video generation for ComfyUI."""

from .nodes import WanExtension

WEB_DIRECTORY = "./web/js"


async def comfy_entrypoint() -> WanExtension:
    """What the host calls to get the pack's nodes."""
    return WanExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
