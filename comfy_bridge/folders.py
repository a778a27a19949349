"""Folders of model files, and the lists that the loader nodes offer.

Beside the host's usual folders there is `models/wan`, into which a whole official release folder is dropped as
it was downloaded. Its entries are listed as `wan/<release>/<file or sub-folder>`.
"""

from collections.abc import Callable
from pathlib import Path

import folder_paths

from ..wan_models.audio.speech_synthesis import is_voice
from ..wan_models.checkpoints.files.formats import SUFFIXES
from ..wan_models.checkpoints.reader import shard_of
from ..wan_models.files import is_hidden, walk_files
from ..wan_models.prompt.language_model import is_language_model
from .listing import files_of, or_else, warn_once

CATEGORY = "wan"
VOICES = "tts"
DETECTION = "detection"
"""Person detectors and pose models; the folder that other packs keep them in too."""
SEGMENTATION = "sam2"
LANGUAGE = "LLM"
"""Language models, in the folder that other packs keep them in too."""
APPROXIMATE = "vae_approx"
"""The host's folder for tiny autoencoders."""


# the host's own folders once more, with the files that it does not list there (GGUF)
_ALL_FILES = {
    "diffusion_models": "wan_gguf_models",
    "text_encoders": "wan_gguf_text_encoders",
    "vae": "wan_gguf_vae",
    "clip_vision": "wan_gguf_clip_vision",
}


def register() -> None:
    """Adds `models/wan` to the host's model folders; an extra_model_paths.yaml may add more under `wan`.

    Files in the host's folders that its lists do not show (GGUF) get categories of their own, so that other packs'
    lists stay as they are."""
    try:
        Path(folder_paths.models_dir, CATEGORY).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        warn_once(
            f"there is no folder for release folders: {error}. Make it, or name another under `wan` in "
            "extra_model_paths.yaml. The host's own model folders are used all the same"
        )
    folder_paths.add_model_folder_path(CATEGORY, str(Path(folder_paths.models_dir, CATEGORY)))
    # the folders come from the host, the file endings do not: without them every file would be listed
    folder_paths.folder_names_and_paths[CATEGORY][1].update(
        [*folder_paths.supported_pt_extensions, *SUFFIXES, ".onnx"]
    )
    for category in (VOICES, DETECTION, SEGMENTATION, LANGUAGE):
        folder_paths.add_model_folder_path(category, str(Path(folder_paths.models_dir, category)))
    for category, ours in _ALL_FILES.items():
        folder_paths.folder_names_and_paths[ours] = (folder_paths.get_folder_paths(category), set(SUFFIXES))


def release_roots() -> list[Path]:
    """The folders that hold official release folders."""
    return [Path(p) for p in folder_paths.get_folder_paths(CATEGORY)]


@or_else(dict)
def _release_entries() -> dict[str, Path]:
    entries: dict[str, Path] = {}
    for file in files_of(CATEGORY):
        for root in () if is_hidden(file) else release_roots():
            path = root / file
            if not path.is_file():  # or a link to nowhere
                continue
            # a folder with a config.json is one model, whatever its files are called; so is a folder with one set of
            # shards. Its other files may be another model's
            is_model = path.suffix.lower() == ".safetensors" and (path.parent / "config.json").is_file()
            if (is_model or _is_set(path)) and path.parent != root:
                path = path.parent
            entries.setdefault(f"{CATEGORY}/{path.relative_to(root).as_posix()}", path)
            break
    return entries


@or_else(bool)
def _is_set(path: Path) -> bool:
    """Whether a file is one of a set of shards that is alone in its folder."""
    shard = shard_of(path.name)
    if shard is None:
        return False
    others = [file for file in path.parent.iterdir() if file.suffix.lower() == path.suffix.lower()]
    stems = {(other := shard_of(file.name)) and other["stem"] for file in others if not is_hidden(file.name)}
    return stems == {shard["stem"]}


@or_else(list)
def _listed(category: str) -> list[str]:
    """The host's list of a category, without hidden files, links to nowhere, and all but the first of the shards
    of a model."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(category)]
    return [
        name
        for name in files_of(category)
        if not is_hidden(name)
        and not ((shard := shard_of(Path(name).name)) and int(shard["number"]) > 1)
        and any((root / name).is_file() for root in roots)
    ]


@or_else(dict)
def _folders(category: str, is_one: Callable[[Path], bool]) -> dict[str, Path]:
    """The model folders in one of the host's folders, by name."""
    is_one = or_else(bool)(is_one)
    roots = [Path(root) for root in folder_paths.get_folder_paths(category) if Path(root).is_dir()]
    folders = [
        folder
        for root in roots
        for folder in sorted(root.iterdir())
        if not is_hidden(folder.name) and folder.is_dir() and is_one(folder)
    ]
    return {folder.name: folder for folder in reversed(folders)}


def voices() -> dict[str, Path]:
    """The text-to-speech folders in models/tts."""
    return _folders(VOICES, is_voice)


def language_models() -> dict[str, Path]:
    """The language models in models/LLM."""
    return dict(sorted(_folders(LANGUAGE, is_language_model).items()))


def segmenters() -> dict[str, Path]:
    """The SAM2 folders in models/sam2."""
    return _folders(SEGMENTATION, lambda folder: (folder / "config.json").is_file())


@or_else(dict)
def detectors() -> dict[str, Path]:
    """ONNX files and ViTPose folders of models/detection, and the ONNX files of the release folders."""
    files = {name: path for name, path in _release_entries().items() if path.suffix.lower() == ".onnx"}
    for root in map(Path, folder_paths.get_folder_paths(DETECTION)):
        for file in walk_files(root, endings=[".onnx"]):
            files.setdefault(file.relative_to(root).as_posix(), file)
    return files | _folders(DETECTION, lambda folder: (folder / "config.json").is_file())


def tiny_vaes() -> list[str]:
    """The tiny autoencoders for Wan's latents in models/vae_approx, told by their names (taew2_1, lighttaew2_2 ...)."""
    return [name for name in _listed(APPROXIMATE) if "taew" in Path(name).name.lower()]


def options(category: str, named: str = "") -> list[str]:
    """Options of a loader: entries of the release folders first, those whose name has `named` in it, then the files of
    the host's `category`."""
    released = [
        name for name in _release_entries() if named in name.lower() and not name.lower().endswith(".onnx")
    ]
    names = [*released, *_listed(category)]
    if category in _ALL_FILES:
        names += _listed(_ALL_FILES[category])
    return list(dict.fromkeys(names))


def resolve(name: str, *categories: str) -> Path:
    """The path behind an entry of `options`; ValueError where it is no longer there."""
    entry = _release_entries().get(name)
    if entry is not None:
        return entry
    for category in categories:
        for listed in (category, _ALL_FILES.get(category)):
            path = folder_paths.get_full_path(listed, name) if listed else None
            if path is not None:
                return Path(path)
    raise ValueError(
        f"{name!r} is neither in models/{categories[0]} nor in models/{CATEGORY}. Put the file there and press R to "
        "refresh the lists, or choose another one."
    )
