"""Lines of text for parts of a video, and the latent frames that they are for."""

from itertools import pairwise

import pytest

from wan_models.text.timeline import TimedText, latent_frames, parse


def spans(lines, frames=81, fps=16.0):
    return [(one.text, one.start, one.stop) for one in parse(lines, frames, fps)]


@pytest.mark.parametrize(
    "lines",
    [
        "0-40: a\n40-80: b", "0-40: a\n41-81: b", "0-2.5s: a\n2.5s - 5 s: b", "0%-50%: a\n50-100%:b",
        "0\u201340f\uff1aa\n\n 2.5s~100%: b", "0-40: a\n40-9999: b",
    ],
)  # fmt: skip
def test_units_and_signs(lines):
    assert spans(lines) == [("a", 0, 11), ("b", 11, 21)]


@pytest.mark.parametrize(
    ("lines", "frames", "expected"),
    [
        ("0-80: all of it", 81, [("all of it", None, None)]),
        ("a cat: it sits\nat 12:30\n12:30 o'clock", 81,
         [("a cat: it sits", None, None), ("at 12:30", None, None), ("12:30 o'clock", None, None)]),
        ("10-20: a\nwhole\n0-81: also", 81, [("whole", None, None), ("also", None, None), ("a", 3, 6)]),
        # gaps: left to what is for all, else to the text before
        ("all\n0-20: a\n60-81: b", 81, [("all", None, None), ("a", 0, 6), ("b", 16, 21)]),
        ("8-20: a\n60-70: b", 81, [("a", 0, 16), ("b", 16, 21)]),
        ("10-70: a", 81, [("a", None, None)]),
        # where ranges overlap, both
        ("0-50: a\n30-81: b", 81, [("a", 0, 13), ("b", 8, 21)]),
        # a range of less than a latent frame has the one that it lies in
        ("x\n80-81: end\n0-1: start\n41-42: m", 81,
         [("x", None, None), ("end", 20, 21), ("start", 0, 1), ("m", 11, 12)]),
        # a clip of speech to video has no latent frame of a single one
        ("0-40: a\n40-80: b", 80, [("a", 0, 10), ("b", 10, 20)]),
        ("0-1: a\nb", 1, [("b", None, None), ("a", None, None)]),
    ],
)  # fmt: skip
def test_ranges(lines, frames, expected):
    assert spans(lines, frames) == expected


@pytest.mark.parametrize("frames", [5, 8, 33, 77, 80, 81, 121])
@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_parts_that_follow_each_other_share_all_latent_frames(frames, cuts):
    """However it is cut, where no part is shorter than a latent frame."""
    edges = [round(i * 100 / (cuts + 1), 2) for i in range(cuts + 2)]
    lines = "\n".join(f"{a}-{b}%: {a}" for a, b in pairwise(edges))
    found = spans(lines, frames)
    if latent_frames(frames) > cuts:
        assert [one[1] for one in found] == [0, *(one[2] for one in found[:-1])]
        assert found[-1][2] == latent_frames(frames)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\n40: b", "line 2 of the schedule: '40' is no range: write 0-40"),
        ("40-: b", "'40-' is no range"),
        ("1-2-3: b", "'1-2-3' is no range"),
        ("40-20: b", "line 1 .* 40-20 ends before it begins"),
        ("0-0: b", "0-0 ends before it begins"),
        ("a\n\n81-90: b", "line 3 .* begins at frame 81, and the video has 81"),
        ("6s-7s: b", "begins at frame 96"),
        ("0-150%: b", "150% is more than the whole video: percents go from 0 to 100"),
        ("100.5-120%: b", "line 1 .* 120% is more than the whole video"),
        ("0-40:  ", "no text after the range"),
        (" \n", "the schedule is empty"),
    ],
)
def test_mistakes_are_named(lines, message):
    with pytest.raises(ValueError, match=message):
        parse(lines, 81, 16.0)


def test_lengths_that_no_model_makes():
    assert [latent_frames(n) for n in (1, 4, 5, 80, 81)] == [1, 1, 2, 20, 21]
    for frames in (2, 3, 82, 0):
        with pytest.raises(ValueError, match="no length that the models make"):
            parse("a", frames, 16.0)
    assert parse("a", 81, 16.0) == [TimedText("a")]
