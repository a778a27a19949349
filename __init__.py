"""Wan2.2 video generation for ComfyUI."""

from .nodes import WanExtension

WEB_DIRECTORY = "./web"  # js/ runs in the page, docs/ are the help pages of the nodes


async def comfy_entrypoint() -> WanExtension:
    """What the host calls to get the pack's nodes."""
    return WanExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
