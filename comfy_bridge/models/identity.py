"""Identity of a run, part by part: by it a later run, of any process, tells whether finished clips are its own.

Each part is named as a user would, so that a refusal can say what differs. A part whose objects keep notes of their own
while they sample (a running average in a guidance patch) is known again after the run: see `settle`.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import comfy.cli_args
import comfy.model_patcher
import torch
from comfy.ldm.modules import attention
from torch import Tensor, nn

from ...wan_models.checkpoints.files.formats import SUFFIXES
from ...wan_models.checkpoints.reader import read_weight_map, shard_of
from .fingerprint import Walk, hash_of, name_of
from .lora import ATTACHMENT

Parts = dict[str, str]
"""Names to digests, or to the plain value itself where it is short."""

_SAMPLED = {"weights": 4 * 2**20, "patches": 16 * 2**20}
"""Bytes above which tensors are looked at in places: a 14B model takes seconds, and so does a merge with one."""

_NO_PIXEL_CALLS = {
    "on_cleanup", "on_detach_after", "on_eject_model", "on_deepclone_multigpu", "on_match_multigpu_clones",
}  # fmt: skip
_METHODS = {"forward", "extra_conds", "apply_model", "_apply_model", "concat_cond"}
_DTYPES_OF_NETWORKS = {"dtype", "compute_dtype", "manual_cast_dtype"}
_ARCHIVED = "_comfy_model_dtype"  # names end so under which newer hosts note the dtypes of weights
LOOKS_AT_FILES = "wan_files"
"""Key of a wrapper that changes no pixel, see `loaded_files`."""
_COPIES = {"multigpu_clones", "ignore_multigpu"}  # of the same model, on other devices
_WEIGHTS: "WeakKeyDictionary[nn.Module, bytes]" = WeakKeyDictionary()
_settled: dict[str, str] = {}


def of_value(value: Any, name: str) -> str:
    """Digest of an input, or the value itself where it is plain and short. Raises `fingerprint.Unknown`."""
    if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < 40):
        return str(value)
    return Walk(of_patcher=_of_patcher).of(value, name).hex()


def of_values(values: Mapping[str, Any]) -> Parts:
    """The parts of inputs by name."""
    return {name: of_value(value, name) for name, value in values.items()}


def of_prompts(positive: Any, negative: Any) -> Parts:
    """The parts of two CONDITIONING, with all that nodes have added to them."""
    return {"positive": of_value(positive, "positive"), "negative": of_value(negative, "negative")}


def of_loaded(thing: Any, name: str) -> str:
    """Digest of a VAE, CLIP vision model or audio encoder: weights, their precision, settings, what was put on it."""
    patcher = getattr(thing, "patcher", None)
    names = _names(patcher) if isinstance(patcher, comfy.model_patcher.ModelPatcher) else {}
    return Walk(names, _of_patcher).of(thing, name).hex()


def of_settings(settings: Any) -> Parts:
    """The fields of a dataclass of settings, each a part."""
    return of_values({field.name: getattr(settings, field.name) for field in fields(settings)})


def of_vae(vae: Any) -> Parts:
    """The parts of a VAE."""
    return {
        "the VAE": of_loaded(vae, "the VAE"),
        "the precision of the VAE": str(getattr(vae, "vae_dtype", None)),
    }


def of_host() -> Parts:
    """Options of the host that reach the numbers of every model."""
    fast = sorted(str(feature) for feature in getattr(comfy.cli_args.args, "fast", None) or ())
    return {
        "the host's attention (--use-...-attention)": attention.optimized_attention.__name__,
        "--fast": str(fast),
    }


def of_model(model: Any) -> Parts:
    """The parts of a MODEL. Raises `fingerprint.Unknown`."""
    walk = Walk(_names(model), _of_patcher)
    return {name: part if isinstance(part, str) else part.hex() for name, part in _parts(model, walk).items()}


def settle(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Notes that what a part looks like after a run stands for what it was before it, for as long as this process
    lives."""
    _settled.update(
        {
            f"{name} {after[name]}": before[name]
            for name in before
            if after.get(name, before[name]) != before[name]
        }
    )


def settled(parts: Mapping[str, str]) -> Parts:
    """Parts as they were before the runs that changed them; see `settle`."""
    return {name: _settled.get(f"{name} {part}", part) for name, part in parts.items()}


def files_of(path: str | Path) -> list[tuple[str, int, int]]:
    """(path, bytes, time of the last change in ns) of a checkpoint's files: one, or a folder's shards and notes."""
    path = Path(path).resolve()
    files = {path}
    if shard := shard_of(path.name):  # which stands for its whole set
        beside = {file: shard_of(file.name) for file in path.parent.iterdir()}
        files = {file for file, other in beside.items() if other and other["stem"] == shard["stem"]}
    if path.is_dir():
        files = {file for file in path.iterdir() if file.suffix.lower() in SUFFIXES}
        notes = list(path.glob("*.safetensors.index.json"))
        for note in notes:  # other models may lie beside the shards that an index names
            with suppress(ValueError):
                files = {path / shard for shard in read_weight_map(note).values()}
        files |= {*notes, path / "config.json"}
    stats = [(file, file.stat()) for file in sorted(files) if file.exists()]
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def _of_patcher(patcher: Any, walk: Walk, _where: str) -> bytes:
    """Digest of a MODEL (or the patcher of another model) that was met inside of something."""
    walk.keep(patcher, _names(patcher))
    parts = _parts(patcher, walk)
    return hash_of(
        *(f"{name} {part if isinstance(part, str) else part.hex()}" for name, part in parts.items())
    )


def _modules(patcher: Any) -> dict[str, nn.Module]:
    """The modules of a model by name, as they are without the patches that may just be in their places."""
    replaced = getattr(patcher, "object_patches_backup", {})
    below = tuple(f"{key}." for key in replaced)
    out = {
        name: module
        for name, module in patcher.model.named_modules()
        if name not in replaced and not name.startswith(below)
    }
    for key, original in replaced.items():
        if isinstance(original, nn.Module):
            out |= {f"{key}.{name}" if name else key: module for name, module in original.named_modules()}
    return out


def _names(patcher: Any) -> dict[int, str]:
    """Names of a model's modules by id; its sampling settings count by what is in them."""
    return {
        id(module): name
        for name, module in _modules(patcher).items()
        if name.split(".")[0] != "model_sampling"
    }


def _parts(patcher: Any, walk: Walk) -> dict[str, bytes | str]:
    model = patcher.model
    files = getattr(model, "checkpoint_files", None)
    storage = getattr(model, "storage", None)  # of ours
    if files and storage is not None and storage.taken_for != "auto":
        files = [*files, storage.taken_for]
    modules = _modules(patcher)
    patched = dict(patcher.object_patches)
    sampling = patched.pop("model_sampling", None) or _sampling(patcher)
    lists = {key: patcher.patches[key] for key in sorted(patcher.patches)}
    of = walk.of
    return {
        "the file of the model": of(files, "") if files else _weights(patcher, modules, walk),
        "the precision of the model": _precision(patcher, modules),
        "the LoRAs of the model": hash_of(
            _large(walk, "patches", lists, "a LoRA or merge of the model"),
            of(list(getattr(patcher, "hook_patches", {}).values()), "a LoRA hook of the model"),
            of(getattr(patcher, "weight_wrapper_patches", {}), "a weight wrapper of the model"),
        ),
        "the sampling settings of the model (shift)": walk.look_into(
            sampling, "the sampling settings of the model"
        ),
        "the patches of the model (guidance, attention, caching ...)": hash_of(
            of(patched, "an object patch of the model"),
            *_options(patcher, walk),
            *_overrides(patcher, modules, walk),
        ),
    }


def _large(walk: Walk, kind: str, value: Any, where: str) -> bytes:
    with walk.in_places(_SAMPLED[kind]):
        return walk.of(value, where)


def _sampling(patcher: Any) -> Any:
    if not hasattr(patcher.model, "model_sampling"):
        return None
    return patcher.get_model_object("model_sampling")


def _options(patcher: Any, walk: Walk) -> list[bytes]:
    """Digests of what nodes have put on a MODEL beside patches of its weights and objects."""
    options = {key: value for key, value in patcher.model_options.items() if key not in _COPIES}
    # empty lists come and go as the host asks for them
    calls = {
        kind: {key: functions for key, functions in by_key.items() if functions}
        for kind, by_key in getattr(patcher, "callbacks", {}).items()
        if kind not in _NO_PIXEL_CALLS
    }
    wrappers = {
        kind: {key: functions for key, functions in by_key.items() if functions and key != LOOKS_AT_FILES}
        for kind, by_key in getattr(patcher, "wrappers", {}).items()
    }
    wrappers = {kind: functions for kind, functions in wrappers.items() if functions}
    attached = {key: value for key, value in getattr(patcher, "attachments", {}).items() if key != ATTACHMENT}
    groups = (
        ("the options of the model: ", options),
        ("a callback of the model: ", {kind: functions for kind, functions in calls.items() if functions}),
        ("a wrapper of the model: ", {kind: functions for kind, functions in wrappers.items() if functions}),
        ("an attachment of the model: ", attached),
        ("an injection of the model: ", getattr(patcher, "injections", {})),
        ("another model beside the model: ", getattr(patcher, "additional_models", {})),
        ("the hooks of the model: ", getattr(patcher, "forced_hooks", None)),
    )
    return [walk.of(value, where) for where, value in groups]


def _overrides(patcher: Any, modules: dict[str, nn.Module], walk: Walk) -> list[bytes]:
    """Digests of methods that were replaced on the model itself, by nothing that the patcher knows of."""
    out = []
    patches = getattr(patcher, "object_patches_backup", {})
    for path, module in modules.items():
        name = f"{path}." if path else ""
        for method in _METHODS & vars(module).keys():
            override = vars(module)[method]
            # what a patch was taken back from stays behind as the method of the class
            is_own = hasattr(override, "__func__") and override.__func__ is getattr(
                type(module), method, None
            )
            if name + method not in patches and not is_own:
                out.append(walk.of([name, method, override], f"{name}{method} of the model"))
        for hooks in ("_forward_hooks", "_forward_pre_hooks"):
            if functions := list(getattr(module, hooks).values()):
                out.append(walk.of([name, hooks, functions], f"a hook on {path} of the model"))
    return sorted(out)


def _precision(patcher: Any, modules: dict[str, nn.Module]) -> str:
    """Dtypes of a model's weights and of its arithmetic, in words."""
    model = patcher.model
    network = modules.get("diffusion_model", model)
    if hasattr(model, "storage"):  # ours
        stored = str(network.dtype) if model.storage.is_converted else "as in the file"
        dtypes = f"{stored}, computed in {network.compute_dtype}"
    else:
        stored = str(getattr(network, "dtype", None))
        replaced = getattr(
            patcher, "object_patches_backup", {}
        )  # while another clone's patch is in its place
        cast = replaced.get("manual_cast_dtype", getattr(model, "manual_cast_dtype", None))
        dtypes = f"{stored}, computed in {cast}"
    if "manual_cast_dtype" in patcher.object_patches:
        dtypes += f", set to {patcher.object_patches['manual_cast_dtype']}"
    # packs keep such settings on their layers, or the classes of them
    holders = [
        *modules.values(),
        *{kind: None for module in modules.values() for kind in type(module).__mro__},
    ]
    layers = {
        f"{name} {value}"
        for holder in holders
        for name, value in vars(holder).items()
        if isinstance(value, torch.dtype) and name not in _DTYPES_OF_NETWORKS and not name.endswith(_ARCHIVED)
    }
    return " ".join([dtypes, *sorted(layers)])


def _weights(patcher: Any, modules: dict[str, nn.Module], walk: Walk) -> bytes:
    """Digest of the weights of a model that does not say what file it is from: each as it is without patches."""
    model = patcher.model
    if model not in _WEIGHTS:
        digests = [hash_of(*sorted({name_of(type(module)) for module in modules.values()}))]
        for path, module in modules.items():
            if path.split(".")[0] == "model_sampling":
                continue
            for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
                name = f"{path}.{leaf}" if path else leaf
                tensor = _original(patcher, name, tensor)
                digests.append(hash_of(name, _large(walk, "weights", tensor, f"the weight {name}")))
        _WEIGHTS[model] = hash_of(*digests)
    return _WEIGHTS[model]


def _original(patcher: Any, name: str, tensor: Tensor | None) -> Any:
    """A weight without what is patched into it just now."""
    if name in patcher.backup:
        return patcher.backup[name].weight
    if name in getattr(patcher, "hook_backup", {}):
        return patcher.hook_backup[name][0]
    return getattr(patcher, "object_patches_backup", {}).get(name, tensor)
