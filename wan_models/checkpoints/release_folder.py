"""The models in a release's folder, the official one or that of diffusers, told by what is in the files."""

from pathlib import Path
from typing import Any

from ..config import DiTConfig
from ..files import visible_files
from .detect import identify
from .errors import KIND_NAMES, CheckpointError
from .files.formats import SUFFIXES
from .files.safetensors_file import SafetensorsFile
from .reader import open_model


class ReleaseFolder:
    """A folder with the models of one release, which it reads the headers of; ValueError where there is no folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"there is no release folder {self.folder}")
        self._models: dict[str, list[Path]] = {}
        self._problems: list[str] = []
        for path in self._candidates():
            try:
                self._models.setdefault(identify(open_model(path)).kind, []).append(path)
            except CheckpointError as error:
                self._problems.append(str(error))

    def _candidates(self) -> list[Path]:
        """Possible models: the folder itself (its safetensors files), folders and other files in it."""
        files = [file for file in visible_files(self.folder) if file.suffix.lower() in SUFFIXES]
        others = [file for file in files if file.suffix.lower() not in SafetensorsFile.suffixes]
        folders = [path for path in sorted(self.folder.iterdir()) if path.is_dir() and _holds_weights(path)]
        return [*([self.folder] if len(others) < len(files) else []), *folders, *others]

    def find(self, kind: str) -> Path:
        """The one model of a `kind` of `ModelInfo`. Raises CheckpointError where there is none, or several."""
        models = self._models.get(kind, [])
        if not models:
            problems = f" ({'; '.join(self._problems)})" if self._problems else ""
            raise CheckpointError(
                f"{self.folder} does not hold {KIND_NAMES[kind]}{problems}: download the whole release"
            )
        if len(models) > 1:
            raise CheckpointError(
                f"{self.folder} holds {KIND_NAMES[kind]} more than once ({', '.join(path.name for path in models)}): "
                "keep one of them"
            )
        return models[0]

    def find_experts(self) -> tuple[Path, Path | None]:
        """The low-noise and the high-noise diffusion model, or the only one and None; errors as of `find`."""
        models = self._models.get("dit", [])
        if len(models) != 2:
            return self.find("dit"), None
        low = [
            path for path in models if "low" in path.name or path.name.endswith("_2")
        ]  # transformer_2 of diffusers
        if len(low) != 1:
            return self.find("dit"), None
        (high,) = (path for path in models if path not in low)
        return low[0], high


def _holds_weights(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES for file in visible_files(folder))


def official_config(config: DiTConfig) -> dict[str, Any]:
    """Content of config.json for a diffusion model."""
    names = ("dim", "eps", "ffn_dim", "freq_dim", "in_dim", "num_heads", "num_layers", "out_dim", "text_len")
    official: dict[str, Any] = {"_class_name": "WanModel", "model_type": config.family}
    official |= {name: getattr(config, name) for name in names}
    if config.driven and config.driven.bias:
        official["model_type"] = f"{config.family}_distilled"
    if config.speech:
        official["audio_inject_layers"] = list(config.speech.inject_layers)
    return official
