"""Model files that were damaged or made to harm: refused in a sentence that names file and field, within bounds."""

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from formats import write_gguf
from safetensors.torch import save_file

from demo.tiny_release import write_release
from wan_models.checkpoints.detect import identify
from wan_models.checkpoints.errors import CheckpointError
from wan_models.checkpoints.reader import open_checkpoint, open_model
from wan_models.models import load_model, load_text_encoder

resource = pytest.importorskip("resource")  # of Unix


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_release(tmp_path_factory.mktemp("wan") / "T2V-A14B")


@pytest.fixture(scope="module")
def state(release):
    return {name: weight.clone() for name, weight in open_checkpoint(release / "low_noise_model").items()}


@pytest.fixture(autouse=True)
def bounded():
    """No case computes for long, or takes memory worth speaking of."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begun < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KB


def refused(path, says):
    with pytest.raises(CheckpointError, match=says) as caught:
        identify(open_model(path))
    assert str(path) in str(caught.value)


# --- GGUF ---


def text(content):
    return struct.pack("<Q", len(content)) + content


def gguf(fields=b"", field_count=0, tensors=b"", tensor_count=0, version=3):
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, field_count)
    return head + fields + tensors + bytes(64)


def field(kind, value, name=b"a.b"):
    return {"fields": text(name) + struct.pack("<I", kind) + value, "field_count": 1}


def tensor(axes=(32,), kind=0, offset=0, count=None, name=b"w"):
    sizes = struct.pack(f"<{len(axes)}Q", *axes)
    described = text(name) + struct.pack("<I", len(axes) if count is None else count) + sizes
    return {"tensors": described + struct.pack("<IQ", kind, offset), "tensor_count": 1}


def array(item, count, content=b""):
    return struct.pack("<IQ", item, count) + content


BROKEN_GGUF = {
    "texts without end": (gguf(**field(9, array(8, 2**40))), "a.b would take more than the file"),
    "a text without end": (gguf(**field(8, struct.pack("<Q", 2**63))), "a.b would take more than the file"),
    "numbers without end": (gguf(**field(9, array(4, 2**62))), "a.b would take more than the file"),
    "arrays in arrays": (gguf(**field(9, array(9, 2, array(9, 1, array(9, 1, array(9, 1)))))), "m.gguf"),
    "arrays without end": (gguf(**field(9, array(9, 2**33))), "a.b would take more than the file"),
    "deep arrays": (gguf(**field(9, array(9, 1) * 10_000)), r"a.b is of an unknown type \(9\)"),
    "an unknown type": (gguf(**field(77, bytes(8))), r"a.b is of an unknown type \(77\)"),
    "a field twice": (gguf(field(0, b"\1")["fields"] * 2, 2), "the field a.b is there twice"),
    "no UTF-8": (gguf(**field(8, text(b"\xff"))), "a.b is no UTF-8 text"),
    "fields without end": (gguf(field_count=2**60), "fields would take more than the file"),
    "tensors without end": (gguf(tensor_count=2**60), "tensors would take more than the file"),
    "axes without end": (gguf(**tensor(count=2**31)), "w has 2147483648 axes"),
    "sizes that overflow": (gguf(**tensor((2**33, 2**33))), "w has 8589934592 x 8589934592 values"),
    "behind the file": (gguf(**tensor(offset=2**40)), "is cut short, .* bytes of w are missing"),
    "larger than the file": (gguf(**tensor((2**20,))), "is cut short, .* bytes of w are missing"),
    "an unknown kind": (gguf(**tensor(kind=999)), "w is stored as kind 999 of ggml's, which cannot be read"),
    "half a block": (gguf(**tensor((16,), kind=8)), "w is damaged .*does not fill whole Q8_0 blocks"),
    "no axis of blocks": (gguf(**tensor((), kind=8)), "w is damaged"),
    "one on another": (
        gguf(tensors=tensor((4,))["tensors"] + tensor((4,), offset=8, name=b"v")["tensors"], tensor_count=2),
        "v lies on another tensor",
    ),
    "a tensor twice": (gguf(tensors=tensor((4,))["tensors"] * 2, tensor_count=2), "tensor w is there twice"),
    "alignment 0": (
        gguf(**field(4, bytes(4), b"general.alignment"), **tensor()),
        "general.alignment is 0, and must be a power of two",
    ),
    "alignment of a list": (
        gguf(**field(9, array(4, 1, bytes(4)), b"general.alignment"), **tensor()),
        r"general.alignment is \[0\]",
    ),
    "another shape noted": (
        gguf(**field(9, array(4, 1, b"\7\0\0\0"), b"comfy.gguf.orig_shape.w"), **tensor((4,))),
        r"w has the shape \[4\], and comfy.gguf.orig_shape.w says \[7\]",
    ),
    "no shape noted": (
        gguf(**field(8, text(b"x"), b"comfy.gguf.orig_shape.w"), **tensor((4,))),
        "comfy.gguf.orig_shape.w is no list of sizes",
    ),
    "another byte order": (gguf(version=3 << 24), "another byte order"),
    "another version": (gguf(version=9), "it is of version 9"),
    "no tensors": (gguf(), "holds no tensors"),
    "cut": (gguf(**field(8, text(b"x")))[:30], "would take more than the file"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN_GGUF)
def test_broken_gguf(tmp_path, what):
    raw, says = BROKEN_GGUF[what]
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    refused(path, says)


# --- PyTorch files ---

TENSOR = torch.zeros(4)
PREFIX = b"\x80\x02"


def program(change=lambda program: program, tensor=TENSOR, **options):
    """A file of torch.save, {"w": tensor}, whose program was changed, and whose records were packed or replaced."""
    made, out = io.BytesIO(), io.BytesIO()
    torch.save({"w": tensor}, made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(out, "w", options.get("packed", 0)) as new:
        for record in old.infolist():
            content = old.read(record)
            if record.filename.endswith("data.pkl"):
                content = change(content)
            if record.filename.endswith("data/0") and "storage" in options:
                content = options["storage"]
            new.writestr(record.filename, content)
        if "more" in options:
            new.writestr(options["more"], b"")
    return out.getvalue()


def storage_claim(count):
    """Another number of values in the storage and the tensor: 4 is only there for these."""
    return lambda raw: raw.replace(b"K\x04", b"J" + struct.pack("<i", count))


def nested(depth):
    return lambda raw: PREFIX + b"(" * depth + b"t" * depth + b"."


def lists_of_lists(raw):
    steps = b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(100))
    return PREFIX + b"]q\x00" + steps + b"."


def tuples_as_a_key(raw):
    steps = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(100))
    return PREFIX + b")q\x00" + steps + b"}h\x64K\x01s."


def itself(raw):
    """{"a": the dict itself, "w": the tensor}."""
    return raw[:-1] + b"q\xf0X\x01\x00\x00\x00ah\xf0s."


BROKEN_PTH = {
    "itself": (program(lambda raw: PREFIX + b"}q\x00X\x01\x00\x00\x00ah\x00s."), "holds no named tensors"),
    "more values": (program(storage_claim(2**31 - 1)), "the values of w are not all there"),
    "fewer values": (program(storage=bytes(3)), "the values of w are not all there, 16 bytes"),
    "no storage": (program(lambda raw: raw.replace(b"\x01\x00\x00\x000", b"\x01\x00\x00\x009")), "not all there"),
    "a large bytearray": (
        program(lambda raw: PREFIX + b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."), "no named tensors",
    ),
    "a large storage": (
        program(lambda raw: PREFIX + b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85\x81."), "holds more than weights",
    ),
    "a large buffer": (program(lambda raw: b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"."), "damaged"),
    "a large text": (program(lambda raw: PREFIX + b"X\xff\xff\xff\xff."), "damaged"),
    "a far place in memory": (program(lambda raw: PREFIX + b"}r\xff\xff\xff\xff."), "holds no named tensors"),
    "lists of lists": (program(lists_of_lists), "holds no named tensors"),
    "tuples as a key": (program(tuples_as_a_key), "holds no named tensors"),
    "deep": (program(nested(300_000)), "holds no named tensors"),
    "deep dicts": (
        program(lambda raw: PREFIX + b"}X\x01\x00\x00\x00a" * 300_000 + b"N" + b"s" * 300_000 + b"."), "holds no",
    ),
    "without end": (program(lambda raw: raw[:-1]), "damaged"),
    "empty": (program(lambda raw: b""), "damaged"),
    "too long": (program(lambda raw: PREFIX + b"N0" * 1_500_000 + raw[2:]), "its list of tensors is too long"),
    "code": (program(lambda raw: PREFIX + b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R."), "holds more than weights"),
    "code by its name": (
        program(lambda raw: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R."), "holds more than weights",
    ),
    "a call of a value": (program(lambda raw: PREFIX + b"K\x01)R."), "holds more than weights"),
    "packed": (program(packed=zipfile.ZIP_DEFLATED), "it was packed once more"),
    "a packed program": (
        program(lambda raw: PREFIX + b"N0" * 10_000_000 + raw[2:], packed=zipfile.ZIP_DEFLATED), "packed once more",
    ),
    "spread out": (program(tensor=torch.zeros(1).expand(2**20)), "w claims more values than are there"),
    "past its storage": (
        program(lambda raw: raw.replace(b"K\x00K\x04\x85", b"K\x02K\x04\x85")), "w claims more values than are there",
    ),
    "negative": (program(lambda raw: raw.replace(b"K\x04\x85", b"J\xff\xff\xff\xff\x85")), "has a broken shape"),
    "no program": (program().replace(b"data.pkl", b"data.pk_"), "without data.pkl"),
    "no records": (b"PK\3\4" + bytes(18) + b"PK\5\6" + bytes(18), "damaged"),
    "TorchScript": (program(more="archive/constants.pkl"), "holds more than weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN_PTH)
def test_broken_pth(tmp_path, what):
    raw, says = BROKEN_PTH[what]
    path = tmp_path / "m.pth"
    path.write_bytes(raw)
    refused(path, says)


def test_a_pth_that_holds_itself_beside_its_weights_opens(tmp_path):
    (tmp_path / "m.pth").write_bytes(program(itself))
    assert list(open_checkpoint(tmp_path / "m.pth")) == ["w"]


@pytest.mark.parametrize("record", ["data/0", "data.pkl"])
@pytest.mark.parametrize("field", [20, 24, 42])
@pytest.mark.parametrize("value", [0, 1, 2**20, 2**32 - 2])
def test_a_directory_of_records_that_lies(tmp_path, record, field, value):
    """Sizes (packed, unpacked) and the place of a record, in the list at the end of the archive."""
    raw = bytearray(program())
    place = raw.rindex(b"archive/" + record.encode()) - 46
    raw[place + field : place + field + 4] = struct.pack("<I", value)
    (tmp_path / "m.pth").write_bytes(raw)
    try:
        found = open_checkpoint(tmp_path / "m.pth")["w"]
    except CheckpointError as error:
        found = str(error)
    assert "m.pth" in found if isinstance(found, str) else torch.equal(found, TENSOR)


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize(
    "change", [b"", PREFIX + b"N.", PREFIX + b"]K\x01a.", PREFIX + b"}.", PREFIX + b"(" * 9000]
)
def test_broken_older_pth(tmp_path, which, change):
    made = io.BytesIO()
    torch.save({"w": TENSOR}, made, _use_new_zipfile_serialization=False)
    raw, cuts = io.BytesIO(made.getvalue()), [0]
    for _ in range(5):
        unpickler = pickle._Unpickler(raw)
        unpickler.persistent_load = lambda _: None
        unpickler.find_class = lambda *_: lambda *_: None
        unpickler.load()
        cuts.append(raw.tell())
    whole = made.getvalue()
    path = tmp_path / "m.pth"
    path.write_bytes(whole[: cuts[which]] + change + whole[cuts[which + 1] :])
    refused(path, "damaged or cut short|holds no named tensors")
    path.write_bytes(whole[: cuts[5]] + struct.pack("<Q", 2**62) + whole[cuts[5] + 8 :])
    refused(path, "bytes are missing")


# --- safetensors ---


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors(header, data=bytes(16)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


BROKEN_SAFETENSORS = {
    "nested": (safetensors(b'{"a":' + b"[" * 200_000), "nested too deep"),
    "twice": (safetensors(b'{"w": 1, "w": 2}'), "'w' is there twice"),
    "NaN": (safetensors(b'{"w": NaN}'), "NaN is no number"),
    "a huge number": (safetensors(b'{"w": ' + b"9" * 5000 + b"}"), "has a broken header"),
    "millions of values": (safetensors(b'{"w": [' + b"[]," * 3_000_000 + b"0]}"), "millions of values"),
    "half a character": (safetensors(b'{"\\ud800": 1}'), "has a broken header"),
    "no dtype": (safetensors({"w": {"shape": [4], "data_offsets": [0, 16]}}), "the dtype of w is missing"),
    "dtype of a number": (safetensors({"w": entry(dtype=1)}), "the dtype of w is missing"),
    "shape of a text": (safetensors({"w": entry(shape="4")}), "the shape of w"),
    "shape of texts": (safetensors({"w": entry(shape=["4"])}), "the shape of w"),
    "negative": (safetensors({"w": entry(shape=[-4])}), "the shape of w"),
    "truth": (safetensors({"w": entry(shape=[True, 4])}), "the shape of w"),
    "overflow": (safetensors({"w": entry(shape=[2**40, 2**40])}), "the shape of w is too large"),
    "many axes": (safetensors({"w": entry(shape=[1] * 70 + [4])}), "the shape of w is too large"),
    "one offset": (safetensors({"w": entry(offsets=[0])}), "data_offsets of w are no beginning and end"),
    "offsets turned": (safetensors({"w": entry(offsets=[16, 0])}), "data_offsets of w"),
    "offsets of texts": (safetensors({"w": entry(offsets=["0", "16"])}), "data_offsets of w"),
    "other sizes": (safetensors({"w": entry(shape=[3])}), r"w has 16 bytes for the shape \[3\]"),
    "behind the file": (safetensors({"w": entry(shape=[8], offsets=[0, 32])}), "cut short, 16 bytes"),
    "one on another": (
        safetensors({"v": entry(), "w": entry(shape=[2], offsets=[8, 16])}), "w lies on another tensor",
    ),
    "a hole": (safetensors({"w": entry(shape=[2], offsets=[8, 16])}), "w does not follow another tensor"),
    "more": (safetensors({"w": entry(shape=[2], offsets=[0, 8])}), "8 bytes follow its tensors"),
    "no object": (safetensors(b"[1]"), "has a broken header"),
    "a list as a tensor": (safetensors({"w": [1]}), "the dtype of w is missing"),
    "a long name": (safetensors({"w" * 400: entry()}), "names of more than 300 characters"),
    "a long header": (struct.pack("<Q", 2**40) + b"{}" + bytes(100), "damaged or cut short"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN_SAFETENSORS)
def test_broken_safetensors(tmp_path, what):
    raw, says = BROKEN_SAFETENSORS[what]
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    refused(path, says)


def test_an_unknown_dtype_is_named(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors({"w": entry(dtype="F4", shape=[32])}))
    refused(path, "w is of unknown type F4")


# --- folders ---


@pytest.mark.parametrize(
    "shard",
    [
        "../m.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "a\\b.safetensors", "C:m.safetensors",
        "m\0.safetensors", "a" * 300 + ".safetensors", "一" * 100 + ".safetensors", 7, None, ["m.safetensors"], {},
    ],
)  # fmt: skip
def test_an_index_opens_files_of_its_own_folder_only(tmp_path, state, shard):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(state, tmp_path / "m.safetensors")
    save_file(state, folder / "m.safetensors")
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(state, shard)}))
    refused(
        folder, r"m.safetensors.index.json (names .*not a file of its own folder|places .* no file's name)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "null",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": 1}',
        "[" * 99999,
    ]
    + ['{"weight_map": {"a": "b"}, "weight_map": {}}', '{"a": NaN}', '{"a": ' + "9" * 5000 + "}", "\ufeff{}"],
)
def test_a_broken_index(tmp_path, state, text):
    save_file(state, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors.index.json").write_text(text)
    refused(tmp_path, "m.safetensors.index.json")


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_paths_that_are_none(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"is no name of a file|cannot be read: File name too long"):
        open_checkpoint(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="is neither a file nor a folder"):
        open_checkpoint(tmp_path / "pipe.safetensors")


def test_folders_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_heads", "2"), ("num_heads", -1), ("num_heads", [2]), ("num_heads", 2**80), ("num_heads", True),
        ("num_heads", 0.5), ("num_attention_heads", {}), ("attention_head_dim", "x"), ("text_len", None),
        ("text_len", 2**40), ("text_len", "512"), ("eps", "small"), ("eps", -1), ("eps", 7), ("eps", []),
    ],
)  # fmt: skip
def test_values_of_other_types_in_a_models_config(tmp_path, state, key, value):
    save_file(state, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"dim": 256, "num_heads": 2} | {key: value}))
    refused(tmp_path, rf"config.json.*: {key} is ")
    assert (
        identify(open_model(tmp_path / "m.safetensors")).config.num_heads == 2
    )  # beside the file: another's


# --- weights that make up no model ---

TELLING = {
    "dit": ("patch_embedding.weight", "head.head.weight", "blocks.0.ffn.0.weight", "time_embedding.0.weight"),
    "vae": ("conv2.weight", "decoder.head.0.gamma"),
    "t5": ("blocks.0.pos_embedding.embedding.weight", "blocks.0.attn.q.weight", "token_embedding.weight"),
}
PARTS = {"dit": "low_noise_model", "vae": "Wan2.1_VAE.pth", "t5": "models_t5_umt5-xxl-enc-bf16.pth"}


@pytest.mark.parametrize("kind", TELLING)
@pytest.mark.parametrize("change", ["gone", "flat", "empty", "single", "whole numbers"])
def test_weights_that_make_up_no_model(release, tmp_path, kind, change):
    whole = dict(open_checkpoint(release / PARTS[kind]))
    for name in TELLING[kind]:
        changed = dict(whole)
        if change == "gone":
            del changed[name]
        else:
            changed[name] = {
                "flat": lambda w: w.flatten(), "empty": lambda w: w[:0], "single": lambda w: w.flatten()[0],
                "whole numbers": lambda w: w.to(torch.int64),
            }[change](whole[name]).clone()  # fmt: skip
        torch.save(changed, tmp_path / "m.pth")
        with pytest.raises(ValueError, match=r"m\.pth"):
            load_model(tmp_path / "m.pth", kind)


def test_a_thousand_blocks_are_not_built(tmp_path, state):
    more = {f"blocks.{i}.x": torch.zeros(1) for i in range(2, 1000)}
    save_file(state | more, tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "blocks.0 and so on are 1000 parts")


# --- tokenizers ---


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", ["a"]), ("tokens", [1, 2]), ("scores", [float("nan")]), ("scores", [0.5]), ("scores", ["x"]),
        ("token_type", ["x"]), ("unknown_token_id", 2**31), ("eos_token_id", 2**31), ("precompiled_charsmap", ["x"]),
    ],
)  # fmt: skip
def test_broken_vocabularies_of_gguf(field, value):
    from wan_models.text.tokenizer import WanTokenizer

    good = {
        "tokens": ["<pad>", "</s>", "<unk>", "▁", "a", "c", "t"], "scores": [0.0, 0.0, 0.0, -1.0, -2.0, -2.0, -2.0],
        "token_type": [3, 3, 2, 1, 1, 1, 1], "unknown_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    read = lambda fields: lambda name: fields.get(name.removeprefix("tokenizer.ggml."))  # noqa: E731
    assert WanTokenizer.from_gguf(read(good))(["a cat"])[0][0, :7].tolist()[-1] == 1
    with pytest.raises(ValueError, match="its tokenizer"):
        WanTokenizer.from_gguf(read(good | {field: value}))


@pytest.mark.parametrize(
    "change",
    [
        "[" * 99999, "{}", '{"model": 1}', "", '{"model": {"type": "Unigram", "vocab": 1}}',
        # knows each letter of some prompts, and has no token for others
        '{"version": "1.0", "model": {"type": "Unigram", "vocab": [[" ", -1], ["a", -1], ["c", -1], ["t", -1]]}}',
    ],
)  # fmt: skip
def test_a_broken_tokenizer_names_its_folder(release, tmp_path, change):
    file = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    file.symlink_to(release / file.name)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(change)
    with pytest.raises(ValueError, match=f"{tmp_path / 'tokenizer'}.* holds no usable tokenizer"):
        load_text_encoder(file)


def test_a_vocabulary_of_megabytes_is_not_built(release, tmp_path):
    """Of each byte the library makes a node of 300."""
    file = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    file.symlink_to(release / file.name)
    vocabulary = [["<unk>", 0.0], *([f"{i:050}", -1.0] for i in range(100_000))]
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary}})
    )
    with pytest.raises(ValueError, match=rf"{tmp_path}.*its tokens have more than 4,194,304 bytes"):
        load_text_encoder(file)


def test_a_tokenizer_of_another_encoder_is_refused(release, tmp_path):
    encoder = load_text_encoder(release / "models_t5_umt5-xxl-enc-bf16.pth")
    assert encoder.tokenizer(["a cat"])[1].sum() > 2
    encoder.tokenizer.vocab_size = 9
    with pytest.raises(ValueError, match="they do not belong together"):
        encoder.tokenizer(["a cat"])


@pytest.mark.parametrize(
    "content", [torch.zeros(9), torch.zeros(9, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)]
)
def test_a_broken_tokenizer_inside_names_the_file(release, tmp_path, content):
    t5 = dict(open_checkpoint(release / "models_t5_umt5-xxl-enc-bf16.pth"))
    save_file(t5 | {"spiece_model": content}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"m\.safetensors.*tokenizer"):
        load_text_encoder(tmp_path / "m.safetensors")


# --- files that change while they are open ---


@pytest.mark.parametrize("kind", ["m.safetensors", "m.pth", "m.gguf", "old.pth"])
@pytest.mark.parametrize("change", ["cut", "overwritten", "replaced", "gone"])
def test_a_file_that_changed_is_not_read(tmp_path, state, kind, change):
    path = tmp_path / kind
    if kind == "m.gguf":
        write_gguf(path, state, "F32")
    elif kind == "m.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "old.pth")
    checkpoint = open_model(path)
    raw = path.read_bytes()
    if change == "cut":
        os.truncate(path, len(raw) // 2)
    elif change == "overwritten":
        with path.open("r+b") as file:
            file.write(raw)
        os.utime(path, ns=(1, 1))
    else:
        path.rename(tmp_path / "moved")  # as long as it is mapped, it is there
        if change == "replaced":
            path.write_bytes(raw)
    expected = "cannot be read: No such file" if change == "gone" else "was changed after it was opened"
    for name in list(checkpoint)[:3]:
        with pytest.raises(CheckpointError, match=expected):
            checkpoint[name]
    mapped = checkpoint.stamps[0]
    if change in ("cut", "overwritten"):
        with pytest.raises(CheckpointError, match="was changed after it was opened"):
            mapped.check_mapped()
    else:  # the mapping is that of the file as it was
        mapped.check_mapped()
