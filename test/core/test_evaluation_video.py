"""The video: that it plays, that nobody waits for it, that failures are told."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from vla_ros.evaluation import video
from vla_ros.evaluation.video import FrameComposer, VideoError, VideoWriter, caption


def images(
    left: tuple[int, int, int] = (250, 0, 0), right: tuple[int, int, int] = (0, 0, 250)
) -> dict[str, np.ndarray]:
    return {
        "base": np.full((240, 320, 3), left, dtype=np.uint8),
        "wrist": np.full((120, 121, 3), right, dtype=np.uint8),
    }


def decode(path: Path) -> tuple[str, list[np.ndarray], list[float]]:
    """Codec, frames as rgb, and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        name = container.streams.video[0].codec_context.name
        return name, [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames]


def test_video_plays_with_every_frame_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "episode.mp4"
    with VideoWriter(path, 20.0) as writer:
        for i in range(40):
            writer.write(images(left=(6 * i, 0, 0)), caption("reach the red block", i / 20.0, "running"))
            time.sleep(0.002)
    assert (writer.frames_written, writer.frames_dropped) == (40, 0)
    codec, frames, times_s = decode(path)
    assert len(frames) == 40
    assert codec == ("h264" if "libx264" in av.codecs_available else "mpeg4")
    np.testing.assert_allclose(times_s, np.arange(40) / 20.0, atol=1e-6)
    for i, frame in enumerate(frames):
        assert frame.shape == (272, 320 + 242, 3)
        # Chroma at half resolution and the quantiser: a few levels off.
        assert abs(int(frame[100, 100, 0]) - 6 * i) < 16
        assert frame[100, 450, 2] > 220
        assert frame[250:].max() > 180
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["episode.mp4"]


def test_without_x264_it_is_mpeg4(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with VideoWriter(tmp_path / "x.mp4", 10.0) as writer:
        writer.write(images(), "")
    codec, frames, _ = decode(tmp_path / "x.mp4")
    assert (codec, len(frames)) == ("mpeg4", 1)


def test_write_does_not_wait_and_drops_the_oldest(tmp_path: Path, monkeypatch) -> None:
    go_on, compose = threading.Event(), FrameComposer.compose
    captions = []

    def slow(self, pictures, text):
        captions.append(text)
        assert go_on.wait(20.0)
        return compose(self, pictures, text)

    monkeypatch.setattr(FrameComposer, "compose", slow)
    count = video._QUEUE + 11
    with VideoWriter(tmp_path / "x.mp4", 10.0) as writer:
        writer.write(images(), "0")
        while not captions:  # The encoder has the first frame and is stuck with it.
            time.sleep(0.001)
        for i in range(1, count):
            writer.write(images(), str(i))
        assert not go_on.is_set()
        go_on.set()
    assert writer.frames_dropped == 10
    assert captions == ["0", *(str(i) for i in range(11, count))]
    _, frames, times_s = decode(tmp_path / "x.mp4")
    assert len(frames) == writer.frames_written == count - 10
    # The dropped frames' time goes to the frame before them.
    assert times_s[1] == pytest.approx(1.1)
    assert times_s[-1] == pytest.approx((count - 1) / 10.0)


def test_a_video_that_cannot_be_written_is_told_at_close(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = VideoWriter(tmp_path / "file" / "x.mp4", 10.0)
    for _ in range(100):
        writer.write(images(), "")
    with pytest.raises(VideoError, match=r"x\.mp4 could not be written .* check the disk"):
        writer.close()
    assert writer.frames_written == 0
    assert writer.frames_dropped == 99  # All but the one on which it failed.


def test_an_encoder_that_fails_midway_leaves_no_file(tmp_path: Path, monkeypatch) -> None:
    compose = FrameComposer.compose

    def failing(self, pictures, text):
        if text == "3":
            raise OSError("no space left on device")
        return compose(self, pictures, text)

    monkeypatch.setattr(FrameComposer, "compose", failing)
    writer = VideoWriter(tmp_path / "x.mp4", 10.0)
    for i in range(6):
        writer.write(images(), str(i))
    with pytest.raises(VideoError, match="no space left"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_comes_before_the_video_s(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def fail() -> None:
        with VideoWriter(tmp_path / "file" / "x.mp4", 10.0) as writer:
            writer.write(images(), "")
            raise KeyError("of the block")

    with pytest.raises(KeyError, match="of the block"):
        fail()


def test_a_video_without_frames_leaves_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mp4", 10.0) as writer:
        pass
    assert list(tmp_path.iterdir()) == []
    assert writer.frames_written == 0
    with pytest.raises(ValueError, match="closed"):
        writer.write(images(), "")


def test_a_camera_that_goes_silent_turns_black_and_other_sizes_are_fitted() -> None:
    composer = FrameComposer(images())
    assert (composer.width % 2, composer.height % 2) == (0, 0)
    picture = composer.compose({"base": np.full((60, 80, 3), 200, dtype=np.uint8)}, "")
    assert picture[:240, :320].min() == 200
    assert picture[:, 320:].max() == 0


@pytest.mark.parametrize("text", ["x" * 300, "größer", ""])
def test_caption_stays_inside_the_picture(text: str) -> None:
    strip = FrameComposer(images()).compose(images(), text)[240:]
    assert strip[:, :4].max() == strip[:, -4:].max() == 0
    assert strip[0].max() == strip[-1].max() == 0
    assert (strip.max() > 100) == bool(text)
