"""What a prompt has made, as a digest of numbers and pixels: files also hold the prompt itself."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file


def digest(files: Sequence[Path]) -> str:
    """Of latents and pictures, in the order of their names."""
    found = hashlib.sha256()
    for file in sorted(files, key=lambda path: (path.suffix, path.name)):
        if file.suffix == ".latent":
            content = load_file(file)["latent_tensor"].numpy()
        else:
            with Image.open(file) as picture:
                content = np.asarray(picture)
        found.update(f"{file.suffix} {content.shape} {content.dtype}".encode())
        found.update(np.ascontiguousarray(content).tobytes())
    return f"{len(files)} files {found.hexdigest()}"
