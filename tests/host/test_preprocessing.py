"""From a video file to an animated character in the real host, with small models of the official signatures."""

import itertools

import av
import numpy as np
import pytest
import torch
from graphs import base_graph, node
from official_preprocessing import people
from onnx_files import write_detector, write_pose
from PIL import Image
from tests_media import write_film_with_sound, write_video
from tiny_sam2 import write_sam2

from demo.tiny_release import write_release
from devhost.errors import HostError
from wan_models.pose.mask import augment_blocks

RELEASE = "wan/Animate-14B"
POSE_MODEL = f"{RELEASE}/process_checkpoint/pose2d/vitpose_h_wholebody.onnx/end2end.onnx"
DETECTOR = f"{RELEASE}/process_checkpoint/det/yolov10m.onnx"
WIDTH, HEIGHT, FRAMES, FPS = 96, 64, 12, 25


@pytest.fixture(scope="module")
def folder(base):
    models, inputs = base / "models", base / "input"
    release = write_release(models / "wan" / "Animate-14B", seed=40, name="Animate-14B")
    inputs.mkdir(exist_ok=True)
    write_detector(
        release / "process_checkpoint" / "det" / "yolov10m.onnx",
        [(100, 40, 300, 600, 0.9, 0), (380, 100, 620, 630, 0.8, 0)],
    )
    points = people(1, 1, 1, 5, low=0.6)[0]
    write_pose(models / POSE_MODEL, points)
    (models / "detection").mkdir(exist_ok=True)
    (models / "detection" / "broken.onnx").write_bytes(b"no model")
    write_sam2(models / "sam2" / "sam2.1-tiny")
    write_video(inputs / "driving.mp4", FRAMES, (WIDTH, HEIGHT), FPS, sound=True)
    whole = (inputs / "driving.mp4").read_bytes()
    (inputs / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (inputs / "dark.mp4").write_bytes(b"")
    with av.open(str(inputs / "dark.mp4"), "w") as film:
        stream = film.add_stream("libx264rgb", rate=FPS, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        for _ in range(3):
            film.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), format="rgb24")
                )
            )
        film.mux(stream.encode())
    uneven(inputs / "uneven.mkv")
    damaged = bytearray(whole)
    with av.open(str(inputs / "driving.mp4")) as film:
        fifth = [packet for packet in film.demux(video=0) if packet.size][5]
    damaged[fifth.pos : fifth.pos + 50] = b"\xff" * 50
    (inputs / "damaged.mp4").write_bytes(damaged)
    away = base / "away"
    away.mkdir()
    (away / "away.mp4").write_bytes(whole)
    for name, target in {
        "link.mp4": away / "away.mp4", "folder": away, "inside.mp4": inputs / "driving.mp4", "gone.mp4": away / "none",
    }.items():  # fmt: skip
        (inputs / name).symlink_to(target)
    (away / "round").symlink_to(inputs)
    pixels = np.random.default_rng(9).integers(60, 256, (120, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(inputs / "portrait.png")
    return base


def uneven(path):
    """A video that rests on its second frame: 0, 40, 640, 680 ... ms."""
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264rgb", rate=FPS, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        for n in range(6):
            pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = n + (14 if n > 1 else 0)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def video(name="driving.mp4", **inputs):
    size = {"fps": 0.0, "start": 0.0, "length": 0, "width": WIDTH, "height": HEIGHT, "fit": "keep aspect"}
    return node("WanLoadVideo", file=name, **(size | inputs))


def detect(images, person="largest", **inputs):
    models = {"detector": DETECTOR, "pose_model": POSE_MODEL}
    return node("WanPoseDetect", images=images, person=person, follow=True, **(models | inputs))


def graph(**inputs):
    """The driving video's skeleton, retargeted and not, the face, the mask and what is left; each one previewed."""
    size = {"width": WIDTH, "height": HEIGHT}
    out = {
        "video": video(**inputs),
        "portrait": node("LoadImage", image="portrait.png"),
        "pose": detect(("video", 0)),
        "reference": detect(("portrait", 0)),
        "retargeted": node("WanPoseRetarget", keypoints=("pose", 0), reference_keypoints=("reference", 0)),
        "plain": node("WanDrawPose", keypoints=("pose", 0), fit="original", **size),
        "drawn": node("WanDrawPose", keypoints=("retargeted", 0), fit="keep aspect", **size),
        "face": node("WanFaceCrop", images=("video", 0), keypoints=("pose", 0)),
        "subject": node(
            "WanSubjectMask", images=("video", 0), keypoints=("pose", 0), sam2_model="sam2.1-tiny", grow=3,
            grow_times=1, blocks_wide=8, blocks_high=8,
        ),
        "left": node("WanBackground", images=("video", 0), mask=("subject", 0)),
        "mask": node("MaskToImage", mask=("subject", 0)),
    }  # fmt: skip
    for name in ("video", "plain", "drawn", "face", "left", "mask"):
        out[f"see {name}"] = node("SaveImage", images=(name, 0), filename_prefix=f"stages/{name}")
    return out


def stage(host, entry, name):
    """The frames that a node of `graph` gave, [T, H, W, 3] of bytes."""
    files = entry["outputs"][f"see {name}"]["images"]
    folder = host.base / "output"
    return np.stack(
        [np.array(Image.open(folder / f["subfolder"] / f["filename"]).convert("RGB")) for f in files]
    )


def test_every_stage(host, folder):
    entry = host.run(graph())
    frames = stage(host, entry, "video")
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    plain, drawn = stage(host, entry, "plain"), stage(host, entry, "drawn")
    assert plain.shape == frames.shape and 0.005 < (plain > 0).any(axis=-1).mean() < 0.5
    # the reference's portrait, in the area of the video
    assert drawn.shape[0] == FRAMES and drawn.shape[1] > drawn.shape[2]
    assert drawn.shape[1] * drawn.shape[2] <= WIDTH * HEIGHT and (drawn > 0).any()
    face = stage(host, entry, "face")
    assert face.shape == (FRAMES, 512, 512, 3) and (face > 0).mean() > 0.9
    mask, left = stage(host, entry, "mask") > 0, stage(host, entry, "left")
    masks = torch.from_numpy(mask.all(axis=-1)).float()
    assert 0 < masks.mean() < 1
    assert torch.equal(augment_blocks(masks, 8, 8), masks)  # whole blocks and no other
    assert np.array_equal(left, np.where(mask, 0, frames))


def test_preprocessing_leads_a_character_to_the_end_of_the_video(host, folder):
    """The whole of it: the video's person is replaced, and its sound and length stay."""
    out = graph()
    out = {name: item for name, item in out.items() if not name.startswith("see")}
    base = base_graph()
    out |= {name: base[name] for name in ("t5", "text")}
    out["model"] = node("WanDiTLoader", model_name=RELEASE)
    out["vae"] = node("WanVAELoader", vae_name=f"{RELEASE}/Wan2.1_VAE.pth")
    clip = f"{RELEASE}/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    out["clip"] = node("WanCLIPVisionLoader", clip_name=clip)
    out["animate"] = node(
        "WanPoseAnimate", model=("model", 0), positive=("text", 0), negative=("text", 1), vae=("vae", 0),
        clip_vision=("clip", 0), reference_image=("portrait", 0), pose_video=("plain", 0), face_video=("face", 0),
        background_video=("left", 0), mask=("subject", 0), frames_per_clip=9, carried_frames="1", preset="custom",
        steps=1, seed=1,
    )  # fmt: skip
    out["film"] = node("CreateVideo", images=("animate", 0), audio=("video", 1), fps=("video", 2))
    out["save"] = node(
        "SaveVideo", video=("film", 0), filename_prefix="video/replaced", format="auto", codec="auto"
    )
    (file,) = [f for f in host.outputs(host.run(out)) if f.suffix == ".mp4"]
    with av.open(str(file)) as film:
        assert sum(1 for _ in film.decode(video=0)) == FRAMES
    with av.open(str(file)) as film:
        assert film.streams.video[0].average_rate == FPS
        sound = film.streams.audio[0]
        assert abs(float(sound.duration * sound.time_base) - FRAMES / FPS) < 0.1


def only(host, entry_of, *names):
    """Those nodes of `graph` that these need, with what is previewed of them."""
    needed, todo = {}, [f"see {name}" for name in names]
    while todo:
        name = todo.pop()
        needed[name] = entry_of[name]
        todo += [value[0] for value in entry_of[name]["inputs"].values() if isinstance(value, list)]
    return host.run(needed)


def test_people_are_told_apart(host, folder):
    drawn = {}
    for person in ("leftmost", "rightmost"):
        out = graph()
        out["pose"]["inputs"]["person"] = person
        drawn[person] = stage(host, only(host, out, "plain"), "plain")
    middle = {name: np.nonzero((frames > 0).any(axis=(0, 1, 3)))[0].mean() for name, frames in drawn.items()}
    assert middle["leftmost"] < WIDTH / 2 < middle["rightmost"]


def of_people(person, **inputs):
    """Skeleton, face and mask of these people, and the mask as it is found."""
    out = graph(length=4)
    out["pose"]["inputs"] |= {"person": person, **inputs}
    out["subject"]["inputs"] |= {"blocks_wide": 0, "blocks_high": 0}
    return out


def test_all_people_are_drawn_and_masked_together(host, folder):
    """One skeleton over the other, one mask of both, the face of the one that is asked for."""
    names = ("plain", "mask", "face")
    entry = only(host, of_people("all"), *names)
    (text,) = entry["outputs"]["pose"]["text"]
    assert text == "people by number, with the frames that each is seen in, of 4: 1 in 4, 2 in 4"
    drawn, mask, face = (stage(host, entry, name) for name in names)
    each = [only(host, of_people(person), *names) for person in ("rightmost", "leftmost")]  # by size
    assert np.array_equal(drawn, np.maximum(*(stage(host, one, "plain") for one in each)))
    assert np.array_equal(mask, np.maximum(*(stage(host, one, "mask") for one in each)))
    assert np.array_equal(face, stage(host, each[0], "face"))
    second = of_people("all")
    second["face"]["inputs"]["person"] = 2
    assert np.array_equal(stage(host, only(host, second, "face"), "face"), stage(host, each[1], "face"))


def test_people_are_chosen_by_number(host, folder):
    """The second alone is what somebody who is meant alone is."""
    chosen = only(host, of_people("all", numbers="2"), "plain", "face")
    alone = only(host, of_people("leftmost"), "plain", "face")
    for name in ("plain", "face"):
        assert np.array_equal(stage(host, chosen, name), stage(host, alone, name))


def test_both_people_go_into_the_proportions_of_two(host, folder):
    out = of_people("all")
    first = stage(host, only(host, out, "drawn"), "drawn")
    out["reference"]["inputs"]["person"] = "all"
    both = stage(host, only(host, out, "drawn"), "drawn")
    assert (both > 0).any(axis=-1).sum() > 1.3 * (first > 0).any(axis=-1).sum()
    out["pose"]["inputs"]["numbers"] = "1"
    with pytest.raises(HostError, match="the driving video has 1 person and the reference image 2"):
        only(host, out, "drawn")


def test_a_variable_rate_keeps_its_time(host, folder):
    """Six frames of which the second rests for 0.6 s, at ten frames per second."""
    frames = stage(host, only(host, graph(name="uneven.mkv", fps=10.0), "video"), "video")
    differs = [bool((a != b).any()) for a, b in itertools.pairwise(frames)]
    assert len(frames) in (8, 9) and differs[:3] == [True, False, False]


def test_loading_takes_what_is_asked_for(host, folder):
    whole = stage(host, only(host, graph(fit="original"), "video"), "video")
    part = stage(host, only(host, graph(fit="original", start=0.2, length=3), "video"), "video")
    assert np.array_equal(part, whole[5:8])
    exact = stage(host, only(host, graph(fit="exact", width=48, height=48, length=1), "video"), "video")
    assert exact.shape == (1, 48, 48, 3)


@pytest.mark.parametrize(("rate", "layout"), [(192000, "stereo"), (11000, "mono"), (48000, "5.1")])
def test_any_sound_can_be_saved_with_the_video(host, folder, rate, layout):
    write_film_with_sound(folder / "input" / f"{rate}.mkv", rate, layout)
    film = {
        "video": video(f"{rate}.mkv", fit="original"),
        "film": node("CreateVideo", images=("video", 0), audio=("video", 1), fps=25.0),
        "save": node("SaveVideo", video=("film", 0), filename_prefix="sound", format="auto", codec="auto"),
    }
    (saved,) = [file for file in host.outputs(host.run(film)) if file.suffix == ".mp4"]
    with av.open(str(saved)) as made:
        parts = [frame.to_ndarray() for frame in made.decode(audio=0)]
        assert abs(sum(part.shape[1] for part in parts) / made.streams.audio[0].rate - 0.4) < 0.05
        assert np.abs(np.concatenate(parts, axis=1)).max() > 0.05


def test_a_damaged_frame_is_named_on_the_node(host, folder):
    entry = only(host, graph(name="damaged.mp4"), "video")
    (text,) = entry["outputs"]["video"]["text"]
    assert text.startswith(
        "damaged.mp4 is damaged: frame 5 of the result (0.20-0.20 s of the file) cannot be decoded"
    )
    frames = stage(host, entry, "video")
    assert len(frames) == FRAMES and np.array_equal(frames[5], frames[4])
    assert "video" not in only(host, graph(start=0.04), "video")["outputs"]


@pytest.mark.parametrize("name", ["inside.mp4", "link.mp4", "folder/away.mp4", "gone.mp4"])
def test_links_are_followed_and_listed_where_the_hosts_own_node_follows_them(host, folder, name):
    def loads(node_of_it, *more):
        try:
            host.run({"video": node_of_it, **dict(more)})
        except HostError:
            return False
        return True

    follows = name != "gone.mp4" and loads(
        node("LoadVideo", file=name),
        ("parts", node("GetVideoComponents", video=("video", 0))),
        ("see", node("PreviewImage", images=("parts", 0))),
    )
    assert loads(video(name, length=1), ("see", node("PreviewImage", images=("video", 0)))) == follows
    file = host.get("/object_info/WanLoadVideo")["WanLoadVideo"]["input"]["required"]["file"]
    listed = file[0] if isinstance(file[0], list) else file[1]["options"]
    assert (name in listed) == follows and "driving.mp4" in listed
    assert len(listed) == len(set(listed)) and not any("round" in one.split("/") for one in listed)
    assert name != "inside.mp4" or follows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("video", "file", "cut.mp4"), r"cut\.mp4 cannot be read as a video"),
        (("video", "start", 9.0), r"driving\.mp4 lasts 0\.48 s"),
        (("video", "file", "dark.mp4"), "nobody was found in any of the 3 frames"),
        (("pose", "detector", "broken.onnx"), r"broken\.onnx cannot be opened as an ONNX model"),
        (("pose", "pose_model", DETECTOR), "gives no heat maps"),
        (("everybody", "numbers", "3"), "there is no person 3: those that were found have the numbers 1, 2"),
        (("everybody", "numbers", "the left one"), "numbers is 'the left one': write numbers of people"),
        (("everybody", "detector", "none (the whole frame)"), "a detector finds people: choose one"),
        (("face", "person", 2), "there is no person 2: those that were found have the numbers 1"),
        (("subject", "sam2_model", "none"), "there is nothing to make a mask from"),
        (("face", "keypoints", ["reference", 0]), "the keypoints are of 1 frame, and the video has 12"),
        (("face", "keypoints", ["retargeted", 0]), r"of frames of 80x120, and the video has 96x64"),
        (("left", "mask", ["portrait mask", 0]), None),
    ],
)
def test_what_cannot_work_says_why(host, folder, change, message):
    out = graph()
    name, key, value = change
    if name == "everybody":
        name, out["pose"]["inputs"]["person"] = "pose", "all"
    out["portrait mask"] = node("ImageToMask", image=("portrait", 0), channel="red")
    out[name]["inputs"][key] = value
    shown = {"video": "plain", "pose": "plain", "subject": "mask"}.get(name, name)
    if message is None:  # one mask stands for all frames, whatever its size
        assert stage(host, only(host, out, shown), shown).shape == (FRAMES, HEIGHT, WIDTH, 3)
        return
    with pytest.raises(HostError, match=message):
        only(host, out, shown)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "missing.mp4", "folder/../away/away.mp4", "../away/away.mp4"]
)
def test_files_stay_in_the_hosts_folders(host, folder, name):
    with pytest.raises(HostError, match=r"there is no video|not in|Invalid"):
        only(host, graph(name=name), "video")
