"""What would fail at the end of a long run is refused before it, and what was made is not lost."""

import json
import re

import pytest
from forked import run_script


@pytest.fixture(scope="module")
def found(comfyui, tmp_path_factory):
    return run_script("long_run_script.py", comfyui, tmp_path_factory.mktemp("long"))


SAID = {
    "sounds": {
        "none": "needs audio, and none is connected",
        "a path": "there is a str",
        "no rate": "there is a dict",
        "(int|bool)": "floating-point numbers from -1 to 1",
        "numpy": "the audio holds float32, where",
        "no .*|one number|4-dim|rate .*": "holds no sound",
        "batch": "a batch of 2 sounds",
        "nan|inf": "no numbers",
        "an hour": "60:00 minutes long, and up to 15",
        "fine.*": "no refusal",
    },
    "folders": {
        "the same|no clip|a folder below|a linked folder": "no refusal",
        "another seed": r"what differs is seed \(5 then, 6 now\): set that back, or choose another name",
        "another audio": "what differs is audio: set",
        "a part more": r"what differs is more \(none then, 1 now\)",
        "first clip lost": "what differs is seed",
        "an old note": "an older version of these nodes.*choose another name, or delete",
        "(a broken|an empty|an endless|another|no|zeros for a|no text in the) note": "no refusal",
        "a note (without parts|of nothing)": "no refusal",
        ".*, other seed|.*, read again": r"what differs is seed \(5 then, 6 now\): set that back",
        ".*, old clips": "no run.json that says of which run",
        "named 'file'": "cannot be used, there is a file of that name",
        "named 'file/below'": "cannot be used, a part of its path is a file",
        "named 'x+'": "cannot be used, its name is too long",
        r"named 'a\\x00b'": "cannot be used",
        r"named '(\.|\.\.|\.\./out|/.*)'": "outside the output folder",
        "a note with EACCES": "ComfyUI may not write there",
        "a note with EROFS": "its disk is read-only",
        "a note with ENOSPC": "its disk is full",
    },
    "locks": {
        "a second run": r"'both' is in use by another run \(process \d+ on .+\): wait until that has ended, or choose",
        "another process": r"in use by another run \(process 7 on pluto\)",
        "after it|after a failed run|killed|after no room": "no refusal",
        "file left": "process 7 on pluto",
        "no room": "no room",
    },
    "videos": {
        "fits|small memory, length": "no refusal",
        "small memory": r"20 frames of film\.mp4 at 64 x 48 take 0\.0 GiB of memory as IMAGE.* a length of 12 fits",
        "refused memory": r"20 frames of film\.mp4 at 64 x 48 take .* a length of \d+ fits, and more at a smaller size",
    },
    "rooms": {
        "fits": "no refusal",
        "small disk with folder": r"8 frames in checkpoint_folder and their film need about 0.3 MiB .* has 0.1 MiB",
        "small disk without": "no refusal",
        "full disk without": "8 frames as a film need about",
        "output with EACCES": "OUTPUT cannot be written to, ComfyUI may not write there",
        "output with EROFS": "its disk is read-only",
        "output with ENOSPC": "its disk is full",
        "output is a file": "OUTPUT/file cannot be written to, there is a file of that name",
        "memory": "GiB of memory as IMAGE.* make the video in parts, or smaller",
        "memory and film": "GiB of memory as IMAGE.* let the node give the film alone",
        "film": "no refusal",
    },
}


@pytest.mark.parametrize("part", SAID)
def test_what_would_fail_late_is_said_before(found, part):
    messages = {what: text for what, text in found[part].items() if isinstance(text, str)}
    expected = {what: [m for name, m in SAID[part].items() if re.fullmatch(name, what)] for what in messages}
    wrong = [
        (what, text) for what, text in messages.items()
        if not expected[what] or not re.search(expected[what][0], text, re.DOTALL)
    ]  # fmt: skip
    assert not wrong
    assert all(any(re.fullmatch(name, what) for what in messages) for name in SAID[part])


def test_a_half_written_clip_is_made_again(found):
    assert found["folders"]["half written"] == 1


def test_a_damaged_note_is_made_anew_from_the_clips(found):
    assert found["folders"]["recovered"] == 1 and found["locks"]["the first run"] == 1


def test_what_the_system_lets_nobody_write_does_not_end_the_run(found):
    once, ever = found["limited"]["once"], found["limited"]["ever"]
    assert once["whole"] and once["found"] == 3 and once["report"] == "made"
    assert ever["whole"] and ever["found"] == 0 and ever["files"] == ["run.json"]
    assert ever["report"] == "made; 3 clips could not be kept in checkpoint_folder (the log says why)"
    for run in (once, ever):
        (line,) = run["log"]
        assert "clip 1, of 0.1 MiB, could not be kept in OUTPUT/limited" in line
        assert "the system lets no file there become as large (" in line and "are free)" in line


def test_every_sound_goes_into_a_film_of_the_host(found):
    for what, (rate, channels, seconds, loud) in found["films"].items():
        given_rate, given_channels = map(int, what.split())
        known = given_rate in (7350, 8000, 11025, 16000, 22050, 44100, 48000, 64000, 88200, 96000)
        assert rate == (given_rate if known else 48000), what
        assert channels == (given_channels if given_channels <= 2 else 1), what
        assert abs(seconds - 0.5) < 2 * 1024 / rate + 1e-3, what  # whole blocks of the codec
        assert 0.25 < loud < 0.8, what
    assert len(found["films"]) == 80


def test_a_clip_that_cannot_be_written_does_not_end_the_run(found):
    once, ever = found["lost"]["once"], found["lost"]["ever"]
    assert once["whole"] and ever["whole"]
    assert once["report"] == "made" and once["found"] == 4
    assert ever["report"] == "made; 3 clips could not be kept in checkpoint_folder (the log says why)"
    assert ever["kept"] == ["clip_0000.safetensors", "run.json"] and ever["found"] == 1


def test_a_film_is_written_while_clips_are_made_and_none_is_kept(found):
    written = found["written"]
    assert written["kept"] == 0 and written["most"] <= 2  # the one that is made, and the one before
    assert written["same"] and json.loads(written["tags"]) == {"1": "a graph"}
    assert written["left"] == ["long_00001_.mp4"]  # of the run that was given up nothing
    assert written["done"] == 4 and written["both"] and written["bytes"]
    for prefix in ("../out", "/elsewhere/x"):
        assert f"filename_prefix '{prefix}' is no name in the output folder" in written[prefix]


def test_disks_that_are_full_or_read_only_in_fact(found):
    mounted = found["mounted"]
    if mounted is None:
        pytest.skip("nothing may be mounted here")
    once, ever = mounted["once"], mounted["ever"]
    assert once == {"whole": True, "report": "made", "found": 3}
    lost = "made; 2 clips could not be kept in checkpoint_folder (the log says why)"
    assert ever == {"whole": True, "report": lost, "found": 1}
    assert (
        "2000 frames as a film need about 0.3 MiB in OUTPUT/full, and its disk has"
        in mounted["output that is full"]
    )
    assert (
        "OUTPUT/read-only cannot be written to, its disk is read-only" in mounted["output that is read-only"]
    )
    said = mounted["folder that is read-only"]
    assert "checkpoint_folder 'talk' cannot be used, its disk is read-only" in said


def test_a_clock_that_is_set_makes_no_time_left_nonsense(found):
    assert found["clock"][0] == "clip 1 of 4"
    assert all(re.fullmatch(r"clip [234] of 4, about \d s left", text) for text in found["clock"][1:])
