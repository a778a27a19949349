"""Whether the tensors of one change to a weight go together, and make up the weight's size, told by their shapes.

Formulas are those of `patches` and of the host's adapters; "inner" are the sizes that a product sums over (ranks).
"""

import math
from collections.abc import Callable, Mapping

Shape = tuple[int, ...]
Parts = Mapping[str, Shape]
"""Part (`lora_names.ENDS`) to its tensor's shape."""


def disagreement(kind: str, parts: Parts, weight: Shape) -> str | None:
    """Why the tensors of a change cannot be put together, in words; None where they can."""
    if math.prod(parts.get("alpha", ())) != 1:
        return f"its alpha {list(parts['alpha'])} is no single number"
    if "dora_scale" in parts and not _is_scale(parts["dora_scale"], weight):
        return f"its lengths {list(parts['dora_scale'])} are neither of rows nor of columns of {list(weight)}"
    check = _INNER.get(kind)
    if check is None or check(parts):
        return None
    used = {what: list(shape) for what, shape in parts.items() if what != "alpha"}
    return "its tensors do not go together: " + ", ".join(f"{what} {shape}" for what, shape in used.items())


def fits(kind: str, parts: Parts, weight: Shape) -> bool:
    """Whether a change whose tensors go together is of the weight's size."""
    check = _OUTER.get(kind)
    return check is None or check(parts, weight)


def _is_scale(shape: Shape, weight: Shape) -> bool:
    if len(shape) == 1:  # one for each row, as peft writes it
        return shape[0] == weight[0]
    of_rows = shape[:1] == weight[:1] and math.prod(shape[1:]) == 1
    of_columns = shape[:1] == (1,) and all(a in (1, b) for a, b in zip(shape, weight, strict=False))
    return len(shape) == len(weight) and (of_rows or of_columns)


def _flat(shape: Shape) -> tuple[int, int]:
    """A tensor as a matrix: its first axis, and all others."""
    return shape[0], math.prod(shape[1:])


def _are_matrices(*shapes: Shape) -> bool:
    return all(len(shape) >= 2 for shape in shapes)


def _lora_goes(parts: Parts) -> bool:
    up, down, mid = parts["lora_up.weight"], parts["lora_down.weight"], parts.get("lora_mid.weight")
    if not _are_matrices(up, down) or _flat(up)[1] != down[0]:
        return False
    return mid is None or (len(mid) == 4 and mid[:2] == (down[0], down[0]))


def _product_goes(a: Shape, b: Shape, core: Shape | None) -> bool:
    """Whether a @ b fits, or both fit a convolution's core."""
    if core is None:
        return _are_matrices(a, b) and len(a) == len(b) == 2 and a[1] == b[0]
    return len(core) == 4 and len(a) == len(b) == 2 and core[:2] == (a[0], b[0])


def _product(a: Shape, b: Shape, core: Shape | None) -> Shape:
    return (a[0], b[1]) if core is None else (a[1], b[1], *core[2:])


def _loha_goes(parts: Parts) -> bool:
    if ("hada_t1" in parts) != ("hada_t2" in parts):
        return False
    return all(_product_goes(*factors) for factors in _loha_factors(parts))


def _loha_factors(parts: Parts) -> list[tuple[Shape, Shape, Shape | None]]:
    return [(parts[f"hada_w{i}_a"], parts[f"hada_w{i}_b"], parts.get(f"hada_t{i}")) for i in (1, 2)]


def _loha_fits(parts: Parts, weight: Shape) -> bool:
    return all(_flat(_product(*factors)) == _flat(weight) for factors in _loha_factors(parts))


def _lokr_factor(parts: Parts, i: int) -> Shape | None:
    """The shape of one factor; None where its own factors do not go together."""
    if f"lokr_w{i}" in parts:
        whole = parts[f"lokr_w{i}"]
        return whole if len(whole) in (2, 4) else None
    factors = parts[f"lokr_w{i}_a"], parts[f"lokr_w{i}_b"], parts.get(f"lokr_t{i}")
    return _product(*factors) if _product_goes(*factors) else None


def _lokr_goes(parts: Parts) -> bool:
    one, two = _lokr_factor(parts, 1), _lokr_factor(parts, 2)
    return one is not None and two is not None and len(one) == 2


def _lokr_fits(parts: Parts, weight: Shape) -> bool:
    one, two = _lokr_factor(parts, 1), _lokr_factor(parts, 2)
    assert one is not None, "they go together"
    assert two is not None, "they go together"
    return (one[0] * two[0], one[1] * math.prod(two[1:])) == _flat(weight)


def _oft_goes(parts: Parts) -> bool:
    blocks = parts["oft_blocks"]
    return len(blocks) in (3, 4) and blocks[-2] == blocks[-1]


def _oft_fits(parts: Parts, weight: Shape) -> bool:
    blocks = parts["oft_blocks"]
    return blocks[-3] * blocks[-2] == weight[0] == math.prod(parts.get("rescale", weight[:1]))


def _glora_goes(parts: Parts) -> bool:
    return _are_matrices(*_glora_factors(parts))


def _glora_factors(parts: Parts) -> tuple[Shape, ...]:
    return tuple(parts[f"{name}.weight"] for name in ("a1", "a2", "b1", "b2"))


def _glora_fits(parts: Parts, weight: Shape) -> bool:
    a1, a2, b1, b2 = map(_flat, _glora_factors(parts))
    rows, columns = _flat(weight)
    # the older order has both pairs the other way round
    for (a, a_back), (b, b_back) in (((a1, a2), (b1, b2)), ((a2, a1), (b2, b1))):
        rank = a[1]
        if (a, a_back, b, b_back) == ((columns, rank), (rank, columns), (rows, rank), (rank, columns)):
            return True
    return False


_INNER: dict[str, Callable[[Parts], bool]] = {
    "LoRA": _lora_goes, "LoHa": _loha_goes, "LoKr": _lokr_goes, "OFT": _oft_goes, "GLoRA": _glora_goes,
}  # fmt: skip
_OUTER: dict[str, Callable[[Parts, Shape], bool]] = {
    "LoHa": _loha_fits, "LoKr": _lokr_fits, "OFT": _oft_fits, "GLoRA": _glora_fits,
    "LoRA": lambda parts, weight: (
        _flat(parts["lora_up.weight"])[0] == weight[0]
        and math.prod(parts["lora_down.weight"][1:]) * math.prod(parts.get("lora_mid.weight", ())[2:])
        == math.prod(weight[1:])
    ),
}  # fmt: skip
