"""Images to video: a colour conversion by OpenCV, an encoder on one thread, a keyframe every other frame.

One thread a stream: what is written doesn't hang on a machine's cores, and streams run beside each other. No
B-frames and closed groups: an episode's packets can be cut out and put behind another's without encoding anew, and
whoever wants one frame decodes two.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from vla_ros.errors import DatasetError, UnknownNameError
from vla_ros.types import ImageArray

# ISO/IEC 23091-2: OpenCV's conversion is BT.601 in limited range, and who decodes is told so.
_BT601, _LIMITED_RANGE = 6, 1


@dataclass(frozen=True)
class _Codec:
    encoder: str
    preset: str
    crf: int
    options: dict[str, str]


CODECS = {
    "h264": _Codec("libx264", "veryfast", 23, {"bf": "0"}),
    "av1": _Codec("libsvtav1", "10", 30, {"svtav1-params": "lp=1:pred-struct=1"}),
}


@dataclass(frozen=True)
class VideoSettings:
    """How images are encoded.

    Attributes:
        codec: one of `CODECS`.
        preset: of the encoder: faster or smaller; empty for the codec's own.
        crf: quality, lower is better; None for the codec's own.
        group: frames from one keyframe to the next.
    """

    codec: str = "h264"
    preset: str = ""
    crf: int | None = None
    group: int = 2

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise UnknownNameError("video codec", self.codec, CODECS)
        if self.group < 1:
            raise DatasetError(f"a keyframe every {self.group} frames: at least 1")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise DatasetError(f"crf {self.crf} isn't in [0, 63]")

    @property
    def options(self) -> dict[str, str]:
        """For the encoder."""
        codec = CODECS[self.codec]
        crf = codec.crf if self.crf is None else self.crf
        return {**codec.options, "preset": self.preset or codec.preset, "crf": str(crf), "g": str(self.group)}


def frame_rate(fps: float) -> Fraction:
    """Frames a second as a ratio, so that the time of a frame is exact however long a video is."""
    return Fraction(fps).limit_denominator(100_000)


class VideoEncoder:
    """Writes images one after the other to an mp4 file; `close` completes it.

    Args:
        path: of the file.
        fps: frames a second.
        width: pixels.
        height: pixels.
        settings: how to encode.

    Raises:
        DatasetError: if the encoder isn't there or refuses the size.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int, settings: VideoSettings) -> None:
        codec = CODECS[settings.codec]
        if codec.encoder not in av.codecs_available:
            raise DatasetError(f"this PyAV has no {codec.encoder}; install PyAV from PyPI, or choose another codec")
        # Half of the colours' resolution needs even sides.
        self._is_half = width % 2 == 0 and height % 2 == 0
        if not self._is_half and settings.codec != "h264":
            raise DatasetError(f"{settings.codec} needs even sides, {path.name} has {width}x{height}; use h264")
        if settings.codec == "av1":
            os.environ.setdefault("SVT_LOG", "1")  # It reports every stream on standard error else.
        self.path, self.frames = path, 0
        self._shape, self._rate = (height, width, 3), frame_rate(fps)
        self._container = av.open(str(path), "w", format="mp4")
        stream: Any = self._container.add_stream(codec.encoder, rate=self._rate, options=settings.options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if self._is_half else "yuv444p"
        context = stream.codec_context
        context.thread_count, context.time_base = 1, 1 / self._rate
        context.colorspace = context.color_primaries = context.color_trc = _BT601
        context.color_range = _LIMITED_RANGE
        self._stream = stream

    def write(self, image: ImageArray) -> None:
        """Encodes the next frame.

        Args:
            image: (height, width, 3) uint8 rgb.

        Raises:
            DatasetError: if it has another size, or the file can't be written.
        """
        if image.shape != self._shape or image.dtype != np.uint8:
            raise DatasetError(
                f"frame {self.frames} of {self.path.name} is {image.dtype} {image.shape}, it has to be uint8 "
                f"{self._shape}"
            )
        frame = self._converted(image)
        frame.pts, frame.time_base = self.frames, 1 / self._rate
        self.frames += 1
        self._mux(frame)

    def close(self) -> None:
        """Completes the file.

        Raises:
            DatasetError: if it can't be written.
        """
        try:
            self._mux(None)
        finally:
            self._close()

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()

    def _close(self) -> None:
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def _mux(self, frame: Any) -> None:
        try:
            packets = self._stream.encode(frame)
            for packet in packets:
                packet.duration = round(1 / (self._rate * packet.time_base))
            self._container.mux(packets)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DatasetError:
        return DatasetError(f"video {self.path} can't be written ({error}); check the disk's free space")

    def _converted(self, image: ImageArray) -> Any:
        if self._is_half:
            planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            return av.VideoFrame.from_ndarray(np.asarray(planes, dtype=np.uint8), format="yuv420p")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        return frame.reformat(format="yuv444p")
