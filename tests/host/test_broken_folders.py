"""Folders that are missing, files, links to nowhere, or on disks that fail: the pack loads, and a line says what is
missing."""

import errno
import shutil

import pytest
from forked import ForkedHost
from other_pack import BREAK

from demo.tiny_release import write_release

CALLS = [
    "Path.mkdir",
    "Path.stat",
    "Path.iterdir",
    "Path.rglob",
    "os.scandir",
    "os.listdir",
    "os.path.getmtime",
]
ERRORS = [errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE, errno.ELOOP]


def test_no_node_is_lost_where_the_disk_fails(host):
    failed = {}
    for call in CALLS:
        for number in ERRORS:
            answer = host.post(BREAK, {"call": call, "errno": number}).json()
            assert answer["asked"] >= 33
            if answer["raised"]:
                failed[call, errno.errorcode[number]] = answer["raised"]
    assert not failed
    log = host.log.read_text(errors="replace")
    assert "[Wan2.2] there is no folder for release folders: [Errno 30] Read-only file system" in log
    assert "[Wan2.2] not all files can be listed: [Errno 13] Permission denied" in log
    info = host.get("/object_info/WanDiTLoader")  # and all is there again
    assert any(
        "wan/T2V-A14B/high_noise_model" in str(part)
        for part in info["WanDiTLoader"]["input"]["required"].values()
    )


@pytest.fixture(scope="module")
def wan_nodes(host):
    return sorted(name for name in host.get("/object_info") if name.startswith("Wan"))


def test_a_host_whose_folders_are_files_and_broken_links(comfyui, tmp_path, wan_nodes):
    models = tmp_path / "models"
    models.mkdir()
    for name in ("wan", "tts", "LLM"):
        (models / name).write_text("no folder")
    for name in ("detection", "sam2", "loras"):
        (models / name).symlink_to(tmp_path / "nowhere")
    write_release(models / "diffusion_models" / "release")
    with ForkedHost(comfyui, base=tmp_path) as host:
        assert sorted(name for name in host.get("/object_info") if name.startswith("Wan")) == wan_nodes
        log = host.log.read_text(errors="replace")
        assert "there is no folder for release folders: [Errno 17] File exists" in log
        assert "IMPORT FAILED" not in log and "Traceback" not in log
        # the host remembers the folders of what it has listed, and one of them goes
        listed = host.get("/object_info/WanVAELoader") and host.get("/object_info/WanDiTLoader")
        assert "release/high_noise_model" in str(listed)
        shutil.rmtree(models / "diffusion_models" / "release" / "high_noise_model")
        listed = str(host.get("/object_info/WanDiTLoader"))
        assert "release/low_noise_model" in listed and "high_noise_model/" not in listed
