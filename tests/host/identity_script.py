"""Runs inside a ComfyUI's own Python process: `identity_script.py COMFYUI PACK BASE`; prints one JSON object.

For each of many things that a graph can put on a model, and for values of all kinds, the digests that a checkpoint
folder would note: `cases` has pairs (name, digests of one thing made twice, digests of others), `states` digests before
and after a run, `models` the parts of models however they are loaded, `unknown` what was said of what cannot be told.
"""

import argparse
import functools
import importlib
import inspect
import json
import re
import runpy
import sys
import threading
import uuid
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

inside = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "inside_host.py"))
pack_name = inside["import_name"](Path(sys.argv[2]))
nodes = inside["enter"](*map(Path, sys.argv[1:4]))

import comfy.hooks  # noqa: E402
import comfy.model_management as management  # noqa: E402
import comfy.utils  # noqa: E402
import comfy.weight_adapter  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from comfy.clip_vision import Output  # noqa: E402

import nodes as host_nodes  # noqa: E402

identity = importlib.import_module(f"{pack_name}.comfy_bridge.models.identity")
fingerprint = importlib.import_module(f"{pack_name}.comfy_bridge.models.fingerprint")
R = "wan/T2V-A14B/"
Q = "diffusion_model.blocks.0.self_attn.q"
HOST = [importlib.import_module(f"comfy_extras.nodes_{m}") for m in (
    "apg", "context_windows", "easycache", "model_advanced", "model_merging", "rope", "slg",
)] + [host_nodes]  # fmt: skip


def first(node, **inputs):
    """The first output of one of our nodes, or of the host's."""
    kind = nodes.get(node) or next(
        getattr(m, name)
        for m in HOST
        for name in (node, f"{node}Node")
        if isinstance(getattr(m, name, None), type)
    )
    if hasattr(kind, "execute"):
        return kind.execute(**inputs).args[0]
    return getattr(kind(), kind.FUNCTION)(**inputs)[0]


def t(*shape, dtype=torch.float32, seed=0):
    values = torch.randn(shape or (1,), generator=torch.Generator().manual_seed(seed)) * 3
    return values.reshape(shape).to(dtype)


# --- values ---


def closure(scale):
    return lambda args: args["denoised"] * scale


def nested(scale):
    def inner(x):
        return x * scale

    return lambda args: inner(args)  # noqa: PLW0108  a function inside a function is what is asked about


def two(which):
    return [lambda args: args + 1, lambda args: args - 1][which]


def default(scale):
    def patch(args, by=scale, *, more=scale):
        return args * by * more

    return patch


class Patch:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, args):
        return args

    def method(self, args):
        return args


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale


def local_class(scale):
    class Guide:
        def __call__(self, args):
            return args * scale

    return Guide()


def cached(scale):
    @functools.lru_cache
    def patch(x):
        return x * scale

    return patch


def cyclic(scale):
    out = [scale]
    out.append(out)
    return out


def output(seed):
    out = Output()
    out["penultimate_hidden_states"] = t(1, 4, 8, seed=seed)
    out["mm_projected"] = None
    return out


def strided(seed):
    return t(6, 4, seed=seed).T[::2]


def hook(strength, start=0.0, seed=0):
    group = comfy.hooks.create_hook_lora({"x.lora_up.weight": t(4, 2, seed=seed)}, strength, strength)
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(0.5, start))
    group.set_keyframes_on_hooks(frames)
    return group


def module(seed, scale=1.0):
    made = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    for p in made.parameters():
        p.data = t(*p.shape, seed=seed)
    made.scale = scale
    return made


class Subclass(torch.Tensor):
    """As packed tensors of other packs: says another shape than it has."""

    @property
    def shape(self):
        return torch.Size([7])


VALUES = {
    "int": (int, 1, 2), "bool": (bool, 0, 1), "nothing": (lambda x: [None, 0][x], 0, 1), "text": (str, 1, "1 "),
    "surrogate": (lambda x: "\ud800" * x, 1, 2), "bytes": (lambda x: bytes([x]), 1, 2),
    "none or text": (lambda x: [None, "None"][x], 0, 1), "number or text": (lambda x: [1, "1"][x], 0, 1),
    "nan": (float, "nan", "inf"), "minus zero": (float, 0.0, -0.0), "complex": (complex, 1, 2),
    "list or items": (lambda x: [["ab"], ["a", "b"]][x], 0, 1), "nesting": (lambda x: [[[1], 2], [1, [2]]][x], 0, 1),
    "set": (lambda x: {"a", "bc", f"d{x}"}, 1, 2), "order of a dict": (lambda x: [{1: 1, 2: 2}, {2: 2, 1: 1}][x], 0, 1),
    "key of a dict": (lambda x: {x: 0}, ("double_block", 1), ("double_block", 2)), "cycle": (cyclic, 1, 2),
    "dtype": (lambda x: x, torch.float16, torch.bfloat16), "size": (lambda x: torch.Size([x]), 1, 2),
    **{f"tensor {d}"[:20]: (lambda s, d=d: t(3, 5, seed=s, dtype=d), 0, 1) for d in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8,
        torch.int64, torch.uint8,
    )},
    "bool tensor": (lambda s: t(9, seed=s) > 0, 0, 1),
    "complex tensor": (lambda s: torch.complex(t(3, seed=s), t(3)), 0, 1),
    "conjugate": (lambda s: torch.complex(t(3), t(3, seed=9)).conj() if s else torch.complex(t(3), t(3, seed=9)), 0, 1),
    "0-dim": (lambda s: t(seed=s), 0, 1), "0-dim bf16": (lambda s: t(seed=s, dtype=torch.bfloat16), 0, 1),
    "no values": (lambda n: torch.empty(n, 3, 0), 0, 1), "shape": (lambda s: t(6).reshape(s), (2, 3), (3, 2)),
    "tensor dtype": (lambda d: torch.zeros(3, dtype=d), torch.int32, torch.float32), "strided": (strided, 0, 1),
    "sparse": (lambda s: torch.eye(3).mul(s).to_sparse(), 1, 2),
    "subclass": (lambda s: t(3, seed=s).as_subclass(Subclass), 0, 1),
    "parameter": (lambda s: torch.nn.Parameter(t(3, seed=s)), 0, 1), "last of many": (
        lambda x: torch.cat([torch.zeros(3_000_000), torch.tensor([float(x)])]), 1, 2),
    "numpy": (lambda s: t(3, seed=s).numpy(), 0, 1), "numpy scalar": (np.int64, 1, 2), "numpy dtype": (
        lambda d: np.zeros(2, d), "i4", "f4"), "numpy objects": (lambda x: np.array([x, None], object), 1, 2),
    "generator": (lambda s: torch.Generator().manual_seed(s), 1, 2), "vision": (output, 0, 1),
    "closure": (closure, 1.0, 2.0), "closure of a closure": (nested, 1.0, 2.0), "two lambdas of one name": (two, 0, 1),
    "defaults": (default, 1, 2), "partial": (lambda x: functools.partial(closure(1), by=x), 1, 2),
    "callable object": (Patch, 1, 2), "bound method": (lambda x: Patch(x).method, 1, 2), "slots": (Slotted, 1, 2),
    "class of a function": (local_class, 1, 2), "cached function": (cached, 1, 2), "tensor in a closure": (
        lambda s: closure(t(2, seed=s)), 0, 1), "deque": (lambda x: deque([x]), 1, 2), "fraction": (Fraction, 1, 2),
    "ordered": (lambda x: OrderedDict([(1, x)]), 1, 2), "pattern": (re.compile, "a", "b"), "path": (Path, "a", "b"),
    "range": (range, 1, 2), "namespace": (lambda x: argparse.Namespace(a=x), 1, 2), "module weights": (module, 0, 1),
    "module setting": (lambda x: module(0, x), 1.0, 2.0), "hook strength": (hook, 1.0, 0.5), "hook start": (
        lambda x: hook(1.0, x), 0.0, 0.5), "hook weights": (lambda s: hook(1.0, seed=s), 0, 1),
    "conditioning": (lambda s: [[t(1, 4, 8, seed=s), {"pooled_output": None, "hooks": hook(1.0)}]], 0, 1),
}  # fmt: skip

SAME = {
    "devices": (torch.device("cpu"), torch.device("meta")), "ids": (uuid.uuid4(), uuid.uuid4()),
    "bars": (comfy.utils.ProgressBar(3), comfy.utils.ProgressBar(4)), "locks": (threading.Lock(), threading.Lock()),
    "strides": (t(4, 4), t(4, 4).T.contiguous().T), "lists and tuples": ([1, 2], (1, 2)),
}  # fmt: skip

UNKNOWN = {
    "generator": (x for x in ()), "file": sys.stdout, "thread": threading.current_thread(), "frame": sys._getframe(),
    "in a closure": closure(iter(sys.stdout)), "deep": functools.reduce(lambda a, _: [a], range(3000), 0),
}  # fmt: skip


def values():
    of = lambda value: identity.of_value([value], "it")  # noqa: E731
    out = {what: [of(make(a)), of(make(a)), of(make(b))] for what, (make, a, b) in VALUES.items()}
    return out | {f"same {what}": [of(a), of(b), ""] for what, (a, b) in SAME.items()}


def in_a_thread(work):
    """The result of a call on a stack of its own: how deep values can be looked into depends on what lies below."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def unknown():
    out = {}
    for what, value in UNKNOWN.items():
        try:
            out[what] = identity.of_value([value], "the input")
        except fingerprint.Unknown as error:
            out[what] = str(error)
    return out


# --- models ---


def lora(seed, scale=1.0, kind="lora"):
    """Weight patches of the same keys and strengths, with other values."""
    key = f"{Q}.weight"

    def patch(model):
        out = model.clone()
        size = model.model.diffusion_model.blocks[0].self_attn.q.weight.shape[0]
        up, down = t(size, 4, seed=seed), t(4, size)
        adapters = comfy.weight_adapter
        change = {
            "lora": lambda: adapters.LoRAAdapter({"a"}, (up, down, scale, None, None, None)),
            "dora": lambda: adapters.LoRAAdapter({"a"}, (t(size, 4), down, 1.0, None, up[:, :1], None)),
            "loha": lambda: adapters.LoHaAdapter({"a"}, (up, down, 1.0, up, down, None, None, None)),
            "lokr": lambda: adapters.LoKrAdapter({"a"}, (None, None, 1.0, up, down, up, down, None, None)),
            "diff": lambda: ("diff", (t(size, size, seed=seed),)),
            "set": lambda: ("set", (t(size, size, seed=seed),)),
            "plain": lambda: (t(size, size, seed=seed),),
        }
        if kind == "offset":
            out.add_patches({(key, (0, 8 * seed, 8)): (t(8, size),)}, 1.0)
        elif kind == "function":
            out.add_patches({(key, None, closure(seed)): (t(size, size),)}, 1.0)
        elif kind == "strength":
            out.add_patches({key: (t(size, size),)}, 1.0 + seed)
        elif kind == "keep":
            out.add_patches({key: (t(size, size),)}, 1.0, 0.5 * seed)
        else:
            out.add_patches({key: change[kind]()}, 1.0)
        return out

    return patch


def put(method, value):
    def patch(model):
        out = model.clone()
        getattr(out, method)(*value)
        return out

    return patch


def host(node, **inputs):
    return lambda model: first(node, model=model, **inputs)


def options(**given):
    def patch(model):
        out = model.clone()
        out.model_options["transformer_options"].update(given)
        return out

    return patch


def bound(scale):
    """As guidance for attention does it: a method bound to a layer of the model itself."""

    def patch(model):
        out = model.clone()
        layer = model.model.diffusion_model.blocks[0].cross_attn
        out.add_object_patch("diffusion_model.blocks.0.cross_attn.forward", Bound(scale).__get__(layer))
        return out

    return patch


class Bound:
    def __init__(self, scale):
        self.scale = scale

    def __get__(self, layer, kind=None):
        def forward(self_module, *args, **kwargs):
            return type(self_module).forward(self_module, *args, **kwargs) * self.scale

        return forward.__get__(layer, type(layer))


def straight(scale):
    """A method of the shared model replaced behind the patcher's back, as older packs do it."""

    def patch(model):
        block = model.model.diffusion_model.blocks[0]
        block.forward = lambda *args, **kwargs: type(block).forward(block, *args, **kwargs) * scale
        return model

    return patch


def capture(scale):
    """A patch that holds the model it is put on."""

    def patch(model):
        out = model.clone()
        out.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + 0 * len(out.patches) * scale)
        return out

    return patch


def windows(overlap):
    inputs = {
        "context_length": 17, "context_overlap": overlap, "context_schedule": "standard_static", "context_stride": 1,
        "closed_loop": False, "fuse_method": "pyramid", "freenoise": False,
    }  # fmt: skip
    known = inspect.signature(HOST[1].WanContextWindowsManualNode.execute).parameters
    return host("WanContextWindowsManual", **{k: v for k, v in inputs.items() if k in known})


PATCHES = {
    **{kind: (lora(0, kind=kind), lora(1, kind=kind)) for kind in (
        "lora", "dora", "loha", "lokr", "diff", "set", "plain", "offset", "function", "strength", "keep",
    )},
    "alpha": (lora(0), lora(0, 2.0)), "another patch on top": (lora(0), lambda m: lora(0)(lora(0)(m))),
    "SLG": [host("SkipLayerGuidanceDiT", scale=s, start_percent=0.0, end_percent=1.0, double_layers=d, single_layers="")
        for s, d in ((1.0, "1"), (2.0, "1"), (1.0, "2"))],
    "SLG simple": [
        host("SkipLayerGuidanceDiTSimple", start_percent=0.0, end_percent=e, double_layers=d, single_layers="")
        for d, e in (("1", 1.0), ("2", 1.0), ("1", 0.5))
    ],
    "RescaleCFG": [host("RescaleCFG", multiplier=x) for x in (0.5, 0.7)],
    "APG": [host("APG", eta=1.0, norm_threshold=5.0, momentum=x) for x in (0.5, 0.7)],
    "shift": [host("ModelSamplingSD3", shift=x) for x in (3.0, 5.0)],
    "compute dtype": [host("ModelComputeDtype", dtype=x) for x in ("fp32", "bf16")],
    **{node: [host(node, reuse_threshold=x, start_percent=0.1, end_percent=0.9, verbose=False) for x in (0.1, 0.2)]
        for node in ("EasyCache", "LazyCache")},
    "rope": [host("ScaleROPE", scale_x=x, scale_y=1.0, scale_t=1.0, **{f"shift_{axis}": 0.0 for axis in "xyt"})
        for x in (1.0, 2.0)],
    "NAG": [lambda m, s=s, x=x: first("WanNAG", model_high=m, negative=[[t(1, 5, 4096, seed=s), {}]], scale=x)
        for s, x in ((0, 11.0), (1, 11.0), (0, 5.0))],
    "merge": [lambda m, r=r: first("ModelMergeSimple", model1=m, model2=load("low"), ratio=r) for r in (0.5, 0.7)],
    "windows": [windows(x) for x in (5, 9)],
    "bound to a layer": (bound(1.0), bound(2.0)), "holds its model": (capture(1), capture(2)),
    "attn2_patch": [put("set_model_attn2_patch", [closure(x)]) for x in (1, 2)],
    "attn1_patch or attn2_patch": [put(f"set_model_attn{x}_patch", [closure(1)]) for x in (1, 2)],
    "patches_replace": [put("set_model_patch_replace", [Patch(1), "dit", "double_block", x]) for x in (1, 2)],
    "cfg function": [put("set_model_sampler_cfg_function", [closure(x)]) for x in (1, 2)],
    "function wrapper": [put("set_model_unet_function_wrapper", [Patch(x).method]) for x in (1, 2)],
    "wrapper": [put("add_wrapper_with_key", ["outer_sample", "k", closure(x)]) for x in (1, 2)],
    "order of wrappers": [lambda m, o=o: put("add_wrapper_with_key", ["outer_sample", o[0], closure(1)])(
        put("add_wrapper_with_key", ["outer_sample", o[1], closure(1)])(m)) for o in ("ab", "ba")],
    "callback": [put("add_callback", ["on_pre_run", closure(x)]) for x in (1, 2)],
    "attachment": [put("set_attachments", ["k", x]) for x in (1, 2)],
    "weight wrapper": [put("add_weight_wrapper", [f"{Q}.weight", closure(x)]) for x in (1, 2)],
    "injection": [put("set_injections", ["k", [Patch(x)]]) for x in (1, 2)],
    "option": [options(grow=x) for x in (1, 2)],
    "additional model": [lambda m, w=w: put("set_additional_models", ["k", [load(w)]])(m) for w in ("high", "low")],
}  # fmt: skip


def load(which, dtype="default"):
    return first("WanDiTLoader", model_name=f"{R}{which}_noise_model", weight_dtype=dtype)


def hosts(which, dtype="default"):
    return first("UNETLoader", unet_name=f"{which}.safetensors", weight_dtype=dtype)


def patched():
    model, plain = load("high"), identity.of_model(load("high"))
    out = {}
    for what, kinds in PATCHES.items():
        given = [identity.of_model(patch(model)) for patch in kinds]
        out[what] = [plain, identity.of_model(kinds[0](load("high"))), *given]
    return out


def run(model, positive, seed=1):
    latent = {"samples": torch.zeros(1, 16, 3, 6, 8)}
    return first(
        "KSampler", model=model, seed=seed, steps=2, cfg=3.0, sampler_name="euler", scheduler="simple",
        positive=positive, negative=positive, latent_image=latent,
    )  # fmt: skip


def loaded():
    """The parts of models before they were loaded, after a run, offloaded, and with everything unloaded."""
    positive = [[t(1, 5, 4096), {}]]
    out = {}
    for what, patch in (
        ("plain", lambda m: m), ("lora", lora(0)), ("slg", PATCHES["SLG"][0]), ("bound", bound(2.0)),
        ("shift", PATCHES["shift"][0]), ("captures", capture(1)), ("cache", PATCHES["EasyCache"][0]),
        ("compute", PATCHES["compute dtype"][1]),
    ):  # fmt: skip
        for loader in (load, hosts):
            model = patch(loader("high"))
            seen = [identity.of_model(model)]
            run(model, positive)
            seen.append(identity.of_model(model))
            identity._WEIGHTS.clear()  # what another process has not seen yet
            seen.append(identity.of_model(model))
            model.unpatch_model(model.offload_device)
            model.load(model.load_device, lowvram_model_memory=1)
            seen.append(identity.of_model(model))
            management.unload_all_models()
            identity._WEIGHTS.clear()
            seen.append(identity.of_model(model))
            out[f"{what} {loader.__name__}"] = seen
    return out


def states():
    """A patch that keeps notes while it samples is known again after them, and only by this process."""
    positive = [[t(1, 5, 4096), {}]]
    model = first("APG", model=load("high"), eta=1.0, norm_threshold=5.0, momentum=0.5)
    before = identity.of_model(model)
    run(model, positive)
    after = identity.of_model(model)
    identity.settle(before, after)
    other = first("APG", model=load("high"), eta=1.0, norm_threshold=5.0, momentum=0.6)
    return [before, after, identity.settled(after), identity.settled(identity.of_model(other))]


def vae(path, dtype="fp32"):
    return first("WanVAELoader", vae_name=path, weight_dtype=dtype)


def main():
    models = {
        "high": load("high"), "high again": load("high"), "low": load("low"), "high fp16": load("high", "fp16"),
        "host's high": hosts("high"), "host's high again": hosts("high"), "host's low": hosts("low"),
        "host's high fp8": hosts("high", "fp8_e4m3fn"), "host's edited": hosts("edited"),
    }  # fmt: skip
    vaes = {
        "ours": vae(R + "Wan2.1_VAE.pth"), "again": vae(R + "Wan2.1_VAE.pth"),
        "bf16": vae(R + "Wan2.1_VAE.pth", "bf16"),
        "other": vae("other_vae.safetensors"), "host's": first("VAELoader", vae_name="vae.safetensors"),
    }  # fmt: skip
    used = vae(R + "Wan2.1_VAE.pth")
    used.decode(torch.zeros(1, 16, 1, 4, 4))
    return {
        "values": values(), "unknown": in_a_thread(unknown), "patched": patched(), "states": states(),
        "loaded": loaded(),
        "models": {what: identity.of_model(model) for what, model in models.items()},
        "vaes": {what: identity.of_vae(found) for what, found in (vaes | {"used": used}).items()},
    }  # fmt: skip


with torch.inference_mode():
    sys.stdout.write(json.dumps(main()))
