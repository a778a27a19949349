"""Damage to model files: bytes anywhere, and fields of their formats, set to what a file should not say."""

import copy
import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

WRONG_NUMBERS = (
    0, 1, -1, 2, 3, 7, 63, 64, 65, 127, 255, 256, 2**15, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**33, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**30,
)  # fmt: skip
WRONG_VALUES = (
    *WRONG_NUMBERS, None, True, False, 0.5, 1e308, "", "x", "\0", "..", "/etc/passwd", "../m.safetensors", "a" * 300,
    "\ud800", "F32", "F4", "BF16", "I64", [], [1], [-1], [2**40, 2**40], [[[]]], {}, {"a": 1}, {"dtype": "F32"},
)  # fmt: skip
WRONG_TEXTS = (
    b"[" * 200_000, b'{"a":' * 100_000, b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":-Infinity}',
    b'{"a":' + b"9" * 5000 + b"}", b"{}", b"[]", b"null", b"7", b'"', b"\xff\xfe{}", b"", b'{"a":"\\ud800"}',
    b"[" + b"[]," * 3_000_000 + b"0]",
)  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def bytes_anywhere(raw: bytes, chance: random.Random) -> bytes:
    """Bits flipped, cut off, zeroed, put in twice; most at the beginning, where headers are."""
    out = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 5, 20))):
        end = max(1, min(len(out), chance.choice((16, 64, 256, 4096, len(out)))))
        place, length = chance.randrange(end), chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(6):
            case 0 | 1:
                out[place] ^= 1 << chance.randrange(8)
            case 2:
                out[place] = chance.choice((0, 1, 127, 128, 255))
            case 3:
                del out[chance.choice((place, max(0, len(out) - place))) :]
            case 4:
                del out[place : place + length]
            case 5:
                out[place:place] = chance.choice((bytes(length), bytes(out[place : place + length])))
        if not out:
            break
    return bytes(out)


def json_fields(text: bytes, chance: random.Random) -> bytes:
    """One or some values of a JSON text set, left out or said twice."""
    if chance.random() < 0.1:
        return chance.choice(WRONG_TEXTS)
    data = json.loads(text)
    for _ in range(chance.choice((1, 1, 1, 3))):
        places = [(holder, key) for holder, key in _places(data, chance)]
        if not places:
            break
        holder, key = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(("", "x", "\ud800", "a" * 400, "blocks.1.ffn.0.weight"))] = holder.pop(
                    key
                )
            case _:
                # a copy: a later change may fall inside of it, and must not change what other files get
                holder[key] = copy.deepcopy(chance.choice(WRONG_VALUES))
    out = json.dumps(data)
    if chance.random() < 0.05 and out.startswith("{") and len(out) > 2:
        out = out[:-1] + ", " + out[1:]  # everything twice
    return out.encode("utf-8", "replace")


def _places(data: object, chance: random.Random) -> Iterator[tuple]:
    """Values by what holds them; of long lists a few."""
    if not isinstance(data, (dict, list)):
        return
    keys = list(data) if isinstance(data, dict) else list(range(len(data)))
    for key in chance.sample(keys, min(len(keys), 12)):
        yield data, key
        yield from _places(data[key], chance)


def safetensors_fields(raw: bytes, chance: random.Random) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    header = json_fields(raw[8 : 8 + length], chance)
    said = chance.choice((len(header),) * 9 + WRONG_NUMBERS) % 2**64
    return struct.pack("<Q", said) + header + raw[8 + length :]


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _gguf_tokens(raw: bytes) -> tuple[list[tuple[str, object]], int]:
    """The header of a valid file as (code of struct, value) and texts; where it ends."""
    place, tokens = 0, []

    def number(code):
        nonlocal place
        value = struct.unpack_from(f"<{code}", raw, place)[0]
        place += struct.calcsize(f"<{code}")
        tokens.append((code, value))
        return value

    def text():
        nonlocal place
        length = number("Q")
        tokens.append(("text", raw[place : place + length]))
        place += length

    def value(kind):
        nonlocal place
        if kind == 8:
            text()
        elif kind == 9:
            item, count = number("I"), number("Q")
            if item == 8:
                for _ in range(count):
                    text()
            else:
                tokens.append(("text", raw[place : place + count * _SIZES[item]]))
                place += count * _SIZES[item]
        else:
            tokens.append(("text", raw[place : place + _SIZES[kind]]))
            place += _SIZES[kind]

    number("I"), number("I")
    tensors, fields = number("Q"), number("Q")
    for _ in range(fields):
        text()
        value(number("I"))
    for _ in range(tensors):
        text()
        for _ in range(number("I")):
            number("Q")
        number("I"), number("Q")
    return tokens, place


def gguf_fields(raw: bytes, chance: random.Random) -> bytes:
    tokens, end = _gguf_tokens(raw)
    numbers = [i for i, (code, _) in enumerate(tokens) if code != "text"]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place = chance.choice(chance.choice((numbers, numbers[:60], numbers[-400:])))
        code, old = tokens[place]
        near = (old + 1, old - 1, old * 2, old << 32, old + 32)
        wrong = chance.choice((*WRONG_NUMBERS, *near)) % 2 ** (8 * struct.calcsize(f"<{code}"))
        tokens[place] = (code, wrong)
        if chance.random() < 0.2:
            texts = [i for i, (code, _) in enumerate(tokens) if code == "text"]
            other = chance.choice(texts)
            tokens[other] = (
                "text",
                chance.choice((b"", b"\xff", b"general.alignment", bytes(8), b"x" * 400)),
            )
    header = b"".join(v if code == "text" else struct.pack(f"<{code}", v) for code, v in tokens)
    return header + bytes(-len(header) % 32) + raw[end + (-end % 32) :]


_BOMBS = (
    b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85\x81.",
    b"\x80\x04\x96" + struct.pack("<Q", 2**40) + b".",
    b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    b"\x80\x02" + b"(" * 500_000 + b"t" * 500_000 + b".",
    b"\x80\x02}r\xff\xff\xff\xff.",
    b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
    b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b".",
    b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"}h\x3cK\x01s.",
    b"\x80\x02" + b"}" * 400_000 + b".",
    b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"\x80\x02X\xff\xff\xff\xff.",
    b"\x80\x02.",
)


def program(raw: bytes, chance: random.Random) -> bytes:
    """A pickle with operations left out, repeated and swapped, and with other numbers and texts."""
    if chance.random() < 0.15:
        return chance.choice(_BOMBS)
    starts = [place for _, _, place in pickletools.genops(raw)]
    steps = [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)]
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        i, j = chance.randrange(len(steps)), chance.randrange(len(steps))
        match chance.randrange(6):
            case 0:
                steps[i] = b""
            case 1:
                steps[i] = steps[i] * 2
            case 2:
                steps[i], steps[j] = steps[j], steps[i]
            case _:  # another number in the place of one
                places = [k for k, step in enumerate(steps) if step[:1] in b"KMJ\x8a" and step]
                if places:
                    number = chance.choice(WRONG_NUMBERS)
                    size = number.bit_length() // 8 + 1
                    steps[chance.choice(places)] = b"\x8a%c" % size + number.to_bytes(
                        size, "little", signed=True
                    )
    return b"".join(steps)


def zipped_program(raw: bytes, chance: random.Random) -> bytes:
    """A file of torch.save with another program, records left out, packed, or of other sizes."""
    out = io.BytesIO()
    packed = chance.random() < 0.1
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        records = old.infolist()
        lost = chance.choice(records) if chance.random() < 0.15 else None
        for record in records:
            content = old.read(record)
            if record.filename.endswith("data.pkl") and chance.random() < 0.8:
                content = program(content, chance)
            if record is lost:
                content = chance.choice(
                    (None, b"", content[:-1], bytes(50_000_000) if packed else content * 2)
                )
            if content is not None:
                kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
                new.writestr(record.filename, content, kind)
    made = out.getvalue()
    if chance.random() < 0.2:  # sizes and places in the directory at the end
        end = bytearray(made)
        place = chance.choice([i for i in range(len(made) - 4) if made[i : i + 4] == b"PK\1\2"])
        field = chance.choice((8, 10, 20, 24, 28, 30, 42))
        end[place + field : place + field + 4] = struct.pack("<I", chance.choice(WRONG_NUMBERS) % 2**32)
        made = bytes(end)
    return made


def old_program(raw: bytes, chance: random.Random) -> bytes:
    """An older file with one of its five programs changed, or the length of a storage."""
    stream, cuts = io.BytesIO(raw), [0]
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        cuts.append(stream.tell())
    parts = [raw[a:b] for a, b in zip(cuts, [*cuts[1:], len(raw)], strict=True)]
    which = chance.choice((0, 1, 2, 3, 3, 3, 3, 4, 5))
    if which < 5:
        parts[which] = program(parts[which], chance)
    else:
        parts[5] = struct.pack("<Q", chance.choice(WRONG_NUMBERS) % 2**64) + parts[5][8:]
    return b"".join(parts)


def mutations_of(file: Path, seed: str) -> tuple[Mutation, ...]:
    """The kinds of damage to a file: twice as much to its fields as to its bytes."""
    by_ending = {".json": json_fields, ".safetensors": safetensors_fields, ".gguf": gguf_fields}
    fields = by_ending.get(file.suffix, old_program if "old" in seed else zipped_program)
    return (bytes_anywhere, fields, fields)
