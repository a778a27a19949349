"""The only code of the pack that knows ComfyUI's insides; it turns wan_models into the host's own objects."""
