"""Video files read frame by frame, cut and joined without encoding anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from vla_ros.errors import DatasetError
from vla_ros.types import ImageArray

# What OpenCV's conversion means, and what decoders take for nothing said.
_BT601_OR_UNSAID, _FULL_RANGE = (2, 5, 6), 2


@dataclass(frozen=True)
class VideoPart:
    """A stretch of a video file.

    Attributes:
        path: of the file.
        first: number of its first frame in the file.
        count: of its frames.
        fps: frames a second, as a ratio.
    """

    path: Path
    first: int
    count: int
    fps: Fraction


@dataclass(frozen=True)
class VideoKind:
    """What has to be equal for two videos to go into one file."""

    codec: str
    width: int
    height: int
    pixel_format: str
    parameters: bytes


def read_video(part: VideoPart) -> Iterator[ImageArray]:
    """The frames of a part in order, (height, width, 3) uint8 rgb.

    Raises:
        DatasetError: if the file is damaged or a frame isn't there.
    """
    with _reading(part.path) as (container, stream):
        stream.thread_type = "AUTO"
        _seek(container, stream, part)
        expected = part.first
        for frame in _items(container.decode(stream), part.path):
            number = _number(frame, stream, part)
            if number < expected:
                continue  # From the keyframe before.
            if number > expected:
                break
            yield _rgb(frame)
            expected += 1
            if expected == part.first + part.count:
                return
        raise DatasetError(
            f"video {part.path} has no frame {expected}, which its dataset says it has; copy the file anew"
        )


def video_kind(path: Path) -> VideoKind:
    """What the first video stream of a file is.

    Raises:
        DatasetError: if it can't be read.
    """
    with _reading(path) as (_, stream):
        context = stream.codec_context
        parameters = bytes(context.extradata or b"")
        return VideoKind(context.codec.canonical_name, context.width, context.height, str(context.pix_fmt), parameters)


def join_videos(parts: Sequence[VideoPart], path: Path, fps: Fraction) -> bool:
    """Writes the parts one behind the other, their packets as they are.

    Args:
        parts: of one `VideoKind`.
        path: of the file to be written.
        fps: of the result; frame k is at k over it, exactly.

    Returns:
        Whether it could be done: a part has to begin with a keyframe. There is no file else.

    Raises:
        DatasetError: if a part lacks frames, or the file can't be written.
    """
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as output:
            target: Any = None
            offset = 0
            for part in parts:
                with _reading(part.path) as (container, stream):
                    if target is None:
                        target = output.add_stream_from_template(stream, opaque=True)
                        target.time_base = 1 / fps
                    if not _copy(container, stream, part, output, target, offset):
                        path.unlink(missing_ok=True)
                        return False
                offset += part.count
    except (av.FFmpegError, OSError) as error:
        path.unlink(missing_ok=True)
        raise DatasetError(f"video {path} can't be written ({error}); check the disk's free space") from error
    return True


def _copy(container: Any, stream: Any, part: VideoPart, output: Any, target: Any, offset: int) -> bool:
    """The packets of a part; False where they can't stand alone."""
    _seek(container, stream, part)
    copied = 0
    for packet in _items(container.demux(stream), part.path):
        if packet.pts is None or packet.dts is None:
            continue  # The end of the stream.
        number = _number(packet, stream, part)
        if copied == 0 and number < part.first:
            continue
        if not part.first <= number < part.first + part.count or (
            copied == 0 and not (packet.is_keyframe and number == part.first)
        ):
            return False
        decoded = round((packet.dts - _start(stream)) * stream.time_base * part.fps)
        packet.stream, packet.time_base = target, 1 / part.fps
        packet.pts, packet.dts = number - part.first + offset, decoded - part.first + offset
        packet.duration = 1
        output.mux(packet)
        copied += 1
        if copied == part.count:
            return True
    raise DatasetError(f"video {part.path} ends after {copied} of {part.count} frames; copy the file anew")


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        opened = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error
    with opened as container:
        if not container.streams.video:
            raise DatasetError(f"{path} holds no video; copy the file anew")
        yield container, container.streams.video[0]


def _items(items: Iterator[Any], path: Path) -> Iterator[Any]:
    """Frames or packets; what the file's damage makes of them is an error for the user."""
    try:
        yield from items
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"video {path} can't be read ({error}); copy the file anew")


def _seek(container: Any, stream: Any, part: VideoPart) -> None:
    """To the keyframe at or before the first frame."""
    if part.first > 0:
        try:
            container.seek(_start(stream) + round(part.first / part.fps / stream.time_base), stream=stream)
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(part.path, error) from error


def _start(stream: Any) -> int:
    return int(stream.start_time or 0)


def _number(item: Any, stream: Any, part: VideoPart) -> int:
    """A frame's or packet's place in the file."""
    if item.pts is None:
        raise DatasetError(f"video {part.path} has frames without a time; convert it with ffmpeg first")
    return int(round((item.pts - _start(stream)) * stream.time_base * part.fps))  # noqa: RUF046


def _rgb(frame: Any) -> ImageArray:
    """OpenCV converts several times as fast as swscale, where it means the same colours."""
    is_plain = frame.format.name == "yuv420p" and frame.width % 2 == 0 and frame.height % 2 == 0
    if is_plain and frame.colorspace in _BT601_OR_UNSAID and frame.color_range != _FULL_RANGE:
        return np.asarray(cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420), dtype=np.uint8)
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
