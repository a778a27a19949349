"""Long videos as a chain of clips: what is shared and cut off, going on from clips on disk, memory, colours."""

import gc
import weakref

import pytest
import torch

from wan_models.images.colour import Colours, recoloured
from wan_models.sampling.long_clips import COLOUR_MATCH, Overlap, long_clip_count, long_clips

PER_CLIP = 13


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (Overlap.of_frames(0), (0, 0, 0)),
        (Overlap.of_frames(1), (1, 1, 0)),
        (Overlap.of_frames(4), (13, 13, 0)),
        (Overlap.of_latents(0), (0, 0, 0)),
        (Overlap.of_latents(1), (4, 5, 1)),
        (Overlap.of_latents(4), (16, 17, 4)),
    ],
)
def test_what_clips_share(overlap, expected):
    assert (overlap.frames, overlap.dropped, overlap.latents) == expected


@pytest.mark.parametrize("overlap", [Overlap.of_frames(2), Overlap.of_latents(2), Overlap.of_latents(0)])
def test_number_of_clips_is_the_least_that_has_the_frames(overlap):
    for frames in range(1, 99):
        clips = long_clip_count(frames, PER_CLIP, overlap)
        has = [PER_CLIP + (n - 1) * (PER_CLIP - overlap.dropped) for n in (clips, clips - 1)]
        assert has[0] >= frames and (clips == 1 or has[1] < frames)


def test_a_clip_without_new_frames_is_refused():
    assert long_clip_count(99, 10, Overlap.of_latents(2)) == 90
    with pytest.raises(ValueError, match="clips of 9 frames bring nothing new where 9 of them repeat"):
        long_clip_count(99, 9, Overlap.of_latents(2))


def video(overlap, clips, seen=None, **options):
    """Clips of a model whose latents depend on all that a clip is given; `seen` keeps what that was."""

    def denoise(segment):
        if seen is not None:
            seen.append(segment)
        z = torch.randn(1, 2, 4, 1, 1, generator=torch.Generator().manual_seed(segment.index))
        given = [part.mean() for part in (segment.past, segment.latents) if part is not None]
        return z + sum(given)

    def decode(z):
        frames = z.flatten().repeat_interleave(8)[: PER_CLIP * 3].view(PER_CLIP, 1, 1, 3)
        return frames.sigmoid().repeat(1, 2, 2, 1)

    return long_clips(denoise, decode, torch.zeros(1, 2, 2, 3), overlap, clips, **options)


@pytest.mark.parametrize("overlap", [Overlap.of_frames(2), Overlap.of_latents(2), Overlap.of_latents(0)])
@pytest.mark.parametrize("colour_match", COLOUR_MATCH)
def test_going_on_after_any_clip_makes_the_same_video(overlap, colour_match):
    seen = []
    whole = list(video(overlap, 4, seen, colour_match=colour_match))
    assert [len(part) for part in whole] == [PER_CLIP, *[PER_CLIP - overlap.dropped] * 3]
    assert seen[0].past is None and seen[0].latents is None
    for done in range(1, 4):
        handed_on = seen[done].latents
        assert (handed_on is None) == (overlap.latents == 0)
        assert (seen[done].past is None) == (overlap.frames == 0)
        rest = video(overlap, 4, colour_match=colour_match, done=whole[:done], latents=handed_on)
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[done:], strict=True))


def test_what_goes_on_is_the_end_of_the_video_so_far():
    seen = []
    parts = list(video(Overlap.of_frames(3), 3, seen))
    assert torch.equal(seen[1].past, parts[0][-9:])
    assert torch.equal(seen[2].past, torch.cat(parts[:2])[-9:])  # more than the 4 new frames of a clip


@pytest.mark.parametrize("overlap", [Overlap.of_frames(1), Overlap.of_latents(1)])
def test_no_clip_is_kept_in_memory(overlap):
    alive, most = weakref.WeakSet(), 0
    gc.freeze()  # what is there already is not looked through forty times
    try:
        for part in video(overlap, 40):
            alive.add(part)
            gc.collect()
            most = max(most, len(alive))
            del part
    finally:
        gc.unfreeze()
    assert most == 1


def test_colours_are_brought_to_those_wanted():
    torch.manual_seed(2)
    frames, others = 0.3 + 0.4 * torch.rand(3, 4, 5, 3), 0.4 + 0.1 * torch.rand(2, 6, 5, 3)
    found = recoloured(frames, Colours.of(frames), Colours.of(others))
    for one, other in zip(Colours.of(found), Colours.of(others), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    deviation, mean = torch.std_mean(others.double(), dim=(0, 1, 2), correction=0)
    assert torch.allclose(Colours.of(others).mean, mean) and torch.allclose(
        Colours.of(others).deviation, deviation
    )
    # a clip without contrast is shifted, and noise in it is not made louder
    flat = torch.full((2, 4, 4, 3), 0.5)
    assert torch.allclose(
        recoloured(flat, Colours.of(flat), Colours.of(others)), Colours.of(others).mean.float()
    )
    assert recoloured(frames, Colours(*(torch.zeros(3),) * 2), Colours.of(others)).max() <= 1
