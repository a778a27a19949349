"""Everything that can be said of the world, in English and Chinese, and the captions made of it.

A caption tells some facts of a video, each `aspect` by one of its `values`; what it leaves out may be anything.
"""

import random
from collections.abc import Mapping

Facts = Mapping[str, str]
"""Aspect -> value."""

WORDS: dict[str, dict[str, tuple[str, str]]] = {
    "kind": {
        "ball": ("ball", "球"), "square": ("square", "方块"), "triangle": ("triangle", "三角形"),
        "face": ("face", "脸"), "figure": ("figure", "人"),
    },
    "colour": {
        "red": ("red", "红色"), "orange": ("orange", "橙色"), "yellow": ("yellow", "黄色"), "green": ("green", "绿色"),
        "blue": ("blue", "蓝色"), "purple": ("purple", "紫色"),
    },
    "background": {
        "black": ("black", "黑色"), "white": ("white", "白色"), "grey": ("grey", "灰色"), "green": ("green", "绿色"),
        "blue": ("blue", "蓝色"),
    },
    "motion": {
        "left": ("to the left", "向左"), "right": ("to the right", "向右"),
        "up": ("up", "向上"), "down": ("down", "向下"),
        "talk": ("talks", "说话"), "dance": ("dances", "跳舞"), "wave": ("waves", "挥手"),
    },
    "speed": {"slow": ("slowly", "慢慢"), "fast": ("quickly", "快速")},
    "size": {"small": ("small", "小"), "large": ("large", "大")},
}  # fmt: skip
"""Aspect -> value -> how it is said in English and in Chinese."""
DIRECTIONS = ("left", "right", "up", "down")
_VERBS = ("moves", "goes", "flies")
_BEFORE = ("before a {} background", "on a {} background", "in front of a {} background")
_TOLD = {"kind": 0.97, "colour": 0.92, "background": 0.9, "motion": 0.93, "speed": 0.5, "size": 0.5}
"""Probability that a caption tells each aspect."""


def some_facts(facts: Facts, rng: random.Random) -> Facts:
    """Facts that a caption tells: most of them; now and then a single one."""
    if rng.random() < 0.05:
        aspect = rng.choice(["kind", "colour", "background"])
        return {aspect: facts[aspect]}
    return {aspect: value for aspect, value in facts.items() if rng.random() < _TOLD[aspect]}


def caption(facts: Facts, rng: random.Random, language: str | None = None) -> str:
    """A caption of all these facts. language: "en" or "zh"; one of the two by chance where not given."""
    language = language or rng.choice(["en", "en", "zh"])
    if set(facts) <= {"colour"} or set(facts) <= {"kind"}:
        return " ".join(WORDS[aspect][value][language == "zh"] for aspect, value in facts.items())
    return _chinese(facts) if language == "zh" else _english(facts, rng)


def _english(facts: Facts, rng: random.Random) -> str:
    said = {aspect: WORDS[aspect][value][0] for aspect, value in facts.items()}
    thing = [said[aspect] for aspect in ("size", "colour") if aspect in said] + [said.get("kind", "thing")]
    article = "an" if thing[0][0] in "aeiou" else "a"
    parts = [f"{article} {' '.join(thing)}"]
    motion = facts.get("motion")
    if motion in DIRECTIONS:
        parts.append(rng.choice(_VERBS))
        parts += rng.sample(
            [said["motion"], *([said["speed"]] if "speed" in said else [])], k=1 + ("speed" in said)
        )
    elif motion:
        parts += [said["motion"], *([said["speed"]] if "speed" in said else [])]
    elif "speed" in said:
        parts += [rng.choice(_VERBS), said["speed"]]
    if "background" in said:
        parts.append(rng.choice(_BEFORE).format(said["background"]))
    text = " ".join(parts)
    return text[0].upper() + text[1:] + "." if rng.random() < 0.5 else text


def _chinese(facts: Facts) -> str:
    said = {aspect: WORDS[aspect][value][1] for aspect, value in facts.items()}
    text = (
        "一个"
        + said.get("size", "")
        + (said["colour"] + "的" if "colour" in said else "")
        + said.get("kind", "东西")
    )
    if "background" in said:
        text += f"在{said['background']}背景前"
    text += said.get("speed", "")
    motion = facts.get("motion")
    if motion in DIRECTIONS:
        return text + said["motion"] + "移动"
    return text + (said["motion"] if motion else "移动" if "speed" in said else "")


def vocabulary() -> tuple[list[str], list[str]]:
    """All words of English captions (pieces begin at a blank), and all of Chinese ones."""
    english = {"thing", "a", "an", "A", "An", *_VERBS, "background"}
    english |= {word for form in _BEFORE for word in form.split() if word != "{}"}
    chinese = {"一个", "的", "东西", "在", "背景", "前", "移动"}
    for values in WORDS.values():
        for en, zh in values.values():
            english |= set(en.split())
            chinese.add(zh)
    return sorted(english), sorted(chinese)
