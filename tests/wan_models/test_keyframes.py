"""Places of keyframes, the latents that they belong to, and the video and mask that a model is given."""

import pytest
import torch

from wan_models.images.conditioning import known_frames, mask_channels
from wan_models.images.keyframes import frames_at, latent_of, snapped


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ("40, 80", [40, 80]),
        ("80,0", [80, 0]),
        ("2.5s", [40]),
        ("0s, 5 s", [0, 80]),
        ("50%, 100%, 0%", [40, 80, 0]),
        ("-1", [80]),
        ("-81, -2", [0, 79]),
        (" 7 ，2.5s\n50%,", [7, 40, 40]),
        ("", []),
        (" , ", []),
    ],
)
def test_places(places, expected):
    assert frames_at(places, 81, 16) == expected


@pytest.mark.parametrize(
    "place",
    ["x", "40 80", "4.5", "+4", "--1", "-1s", "-5%", "1e3", "nan", "inf", "nans", "2.5m", "s", "%", "9" * 5000,
     "9" * 5000 + "s", "½", "4;8", "0x10"],
)  # fmt: skip
def test_what_is_no_place_is_named(place):
    with pytest.raises(ValueError, match="is no place in a video: give frames") as error:
        frames_at(f"0, {place}", 81, 16)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("place", ["81", "-82", "5.1s", "100.7%", "999999999", "999999999s", "999999999%"])
def test_places_outside_of_the_video_are_named(place):
    with pytest.raises(ValueError, match=f"{place} lies outside of the video, whose frames are 0 to 80"):
        frames_at(place, 81, 16)


def test_a_keyframe_stands_at_the_last_frame_of_its_latent():
    """So the mask's channels: of the first latent all four, of another one the last."""
    assert [latent_of(frame) for frame in range(10)] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    for frame in range(21):
        (place,) = snapped([frame], 21)
        assert frame <= place < frame + 4 and latent_of(place) == latent_of(frame)
        video, known = known_frames(None, None, 21, {place: torch.ones(1, 2, 2, 3)})
        assert known.nonzero().tolist() == [[place]]
        assert (video[place] == 1).all() and (video[~known] == 0.5).all()
        mask = mask_channels(known, 1, 1)[:, :, 0, 0]
        expected = torch.zeros(4, 6)
        expected[0 if place == 0 else 3 :, latent_of(frame)] = 1
        assert torch.equal(mask, expected)


def test_images_at_the_ends_are_known_frames_of_their_own():
    start, end, middle = (torch.full((1, 2, 2, 3), value) for value in (0.1, 0.2, 0.3))
    together = known_frames(start, end, 9, {4: middle})
    for found, expected in zip(
        known_frames(None, None, 9, {0: start, 4: middle, 8: end}), together, strict=True
    ):
        assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="3 images are given for a video of 1 frame: give"):
        known_frames(start, end, 1, {0: middle})


@pytest.mark.parametrize(
    ("wanted", "start", "end", "message"),
    [
        ([38, 40], 0, 0, r"frame 40 belongs to the same latent \(frames 37 to 40\) as frame 38"),
        ([40, 37], 0, 0, r"frame 37 belongs to the same latent \(frames 37 to 40\) as frame 40"),
        ([0], 1, 0, r"frame 0 belongs to the same latent \(frame 0\) as the start image"),
        ([3], 2, 0, r"frame 3 belongs to the same latent \(frames 1 to 4\) as the start image"),
        ([80], 0, 1, r"frame 80 belongs to the same latent \(frames 77 to 80\) as the end image"),
        ([75], 1, 5, r"frame 75 belongs to the same latent \(frames 73 to 76\) as the end image"),
    ],
)
def test_a_latent_takes_one_picture(wanted, start, end, message):
    with pytest.raises(ValueError, match=message):
        snapped(wanted, 81, start, end)


def test_latents_beside_each_other_each_take_one():
    assert snapped([80, 1, 5, 36, 37], 81, start=1) == [80, 4, 8, 36, 40]
