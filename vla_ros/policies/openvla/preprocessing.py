"""From an image and an instruction to OpenVLA's input, as the checkpoint's own files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from vla_ros.errors import ConfigError, InstructionError
from vla_ros.types import ImageArray

Float32Array = NDArray[np.float32]

BOS_ID, EOS_ID = 1, 2
# "▁" alone: in training it stood between the prompt's colon and the first action token.
SPACE_ID = 29871


def build_prompt(instruction: str) -> str:
    """The words that OpenVLA was trained to answer with an action.

    Raises:
        InstructionError: for an empty instruction.
    """
    if not instruction.strip():
        raise InstructionError(instruction, "is empty", "say what to do, as in `pick up the red block`")
    return build_question(f"What action should the robot take to {instruction.lower()}?")


def build_question(question: str) -> str:
    """A question about an image as the base of OpenVLA was taught to answer it (Prismatic's prompt for Llama 2)."""
    return f"In: {question.strip()}\nOut:"


class PromptEncoder:
    """Token ids of prompts.

    Args:
        path: the checkpoint's tokenizer.json.

    Raises:
        ConfigError: if it can't be read.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(
                str(path), "no such file", "save the fast tokenizer with the checkpoint (save_pretrained)"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # The library raises bare Exception for whatever is wrong with the file.
            raise ConfigError(str(path), f"isn't a tokenizer ({error})", "fetch the checkpoint's file again") from error

    def encode(self, instruction: str, longest: int) -> list[int]:
        """Ids of the prompt: BOS first, the bare space last.

        Args:
            instruction: the task.
            longest: ids that the model has room for.

        Raises:
            InstructionError: for an empty or too long instruction.
        """
        ids = self._encode_prompt(build_prompt(instruction))
        if ids[-1] != SPACE_ID:
            ids = [*ids, SPACE_ID]
        return _check_length(ids, instruction, longest)

    def encode_answered(self, question: str, answer: str, longest: int) -> tuple[list[int], list[int]]:
        """Ids of a question's prompt, BOS first, and of its answer, EOS last, encoded apart as Prismatic does.

        Args:
            question: about the image.
            answer: to be learnt.
            longest: ids that the model has room for.

        Raises:
            InstructionError: for an empty question or answer, or where both together are too long.
        """
        for text in (question, answer):
            if not text.strip():
                raise InstructionError(text, "is empty", "give a question about the image, and its answer")
        ids = self._encode_prompt(build_question(question))
        said: list[int] = self._tokenizer.encode(answer.strip(), add_special_tokens=False).ids
        _check_length([*ids, *said, EOS_ID], question, longest)
        return ids, [*said, EOS_ID]

    def _encode_prompt(self, prompt: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(prompt).ids
        return ids if ids[:1] == [BOS_ID] else [BOS_ID, *ids]


def _check_length(ids: list[int], text: str, longest: int) -> list[int]:
    if len(ids) > longest:
        raise InstructionError(text[:40] + " ...", f"has {len(ids)} tokens, room for {longest}", "shorten it")
    return ids


@dataclass(frozen=True)
class TowerTransform:
    """What happens to an image before a tower sees it.

    Attributes:
        resize: (height, width), or one number for the shorter side, pixels.
        filter: Pillow's resampling.
        crop: (height, width) kept of the middle.
        mean: (3,) subtracted from values in [0, 1].
        std: (3,) divided by.
    """

    resize: tuple[int, ...]
    filter: Image.Resampling
    crop: tuple[int, int]
    mean: Float32Array
    std: Float32Array

    def __call__(self, image: Image.Image) -> Float32Array:
        """(3, height, width) float32."""
        resized = image.resize(self._size(image), self.filter)
        height, width = self.crop
        left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
        cropped = resized.crop((left, top, left + width, top + height))
        values = np.asarray(cropped, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
        return (values - self.mean[:, None, None]) / self.std[:, None, None]

    def _size(self, image: Image.Image) -> tuple[int, int]:
        if len(self.resize) == 2:
            return self.resize[1], self.resize[0]
        short, long = min(image.size), max(image.size)
        other = int(self.resize[0] * long / short)
        return (self.resize[0], other) if image.width <= image.height else (other, self.resize[0])


@dataclass(frozen=True)
class ImagePreprocessor:
    """A camera's image to the six channels of the model: DINOv2's three, then SigLIP's.

    Attributes:
        transforms: one a tower.
        letterbox_fill: colour of the bars that make the image square, None where it isn't padded.
        centre_area: part of the image's area that is kept before all, for models trained on random crops of it (0.9).
    """

    transforms: tuple[TowerTransform, ...]
    letterbox_fill: tuple[int, int, int] | None = None
    centre_area: float = 1.0

    def __call__(self, image: ImageArray) -> Float32Array:
        """(height, width, 3) uint8 rgb to (6, height, width) float32."""
        cut = crop_area(image, self.centre_area) if self.centre_area < 1.0 else image
        picture = Image.fromarray(np.ascontiguousarray(cut))
        if self.letterbox_fill is not None:
            picture = _letterbox(picture, self.letterbox_fill)
        return np.concatenate([transform(picture) for transform in self.transforms])


def parse_preprocessor(
    data: Mapping[str, Any], image_px: tuple[int, ...], where: str, centre_area: float = 1.0
) -> ImagePreprocessor:
    """The preprocessing that a preprocessor_config.json describes.

    Args:
        data: the file's content, as OpenVLA's PrismaticImageProcessor saves it.
        image_px: edge of each tower's image.
        where: the file, for error texts.
        centre_area: see ImagePreprocessor.

    Raises:
        ConfigError: for another kind of preprocessing, or sizes that aren't the towers'.
    """
    strategy = data.get("image_resize_strategy")
    if strategy not in ("resize-naive", "resize-crop", "letterbox"):
        raise ConfigError(
            f"{where}: image_resize_strategy", f"is {strategy!r}", "known: resize-naive, resize-crop, letterbox"
        )
    keys = ("tvf_resize_params", "tvf_crop_params", "tvf_normalize_params")
    for key in keys:
        if not isinstance(data.get(key), list) or len(data[key]) != len(image_px):
            raise ConfigError(
                f"{where}: {key}", f"isn't a list of {len(image_px)}", "fetch the checkpoint's file again"
            )
    try:
        transforms = tuple(_parse_transform(*(data[key][i] for key in keys)) for i in range(len(image_px)))
        fill = data.get("tvf_letterbox_fill") if data.get("tvf_do_letterbox") else None
        red, green, blue = fill or (0, 0, 0)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(where, f"can't be read ({error!r})", "fetch the checkpoint's file again") from error
    for i, (transform, edge_px) in enumerate(zip(transforms, image_px, strict=True)):
        if transform.crop != (edge_px, edge_px):
            raise ConfigError(
                f"{where}: tvf_crop_params[{i}]",
                f"gives {transform.crop} pixels",
                f"the model sees {edge_px} x {edge_px}",
            )
    return ImagePreprocessor(transforms, None if fill is None else (int(red), int(green), int(blue)), centre_area)


def _parse_transform(resize: Any, crop: Any, normalise: Any) -> TowerTransform:
    size = resize["size"]
    mean, std = (np.array(normalise[key], dtype=np.float32) for key in ("mean", "std"))
    if mean.shape != (3,) or std.shape != (3,) or not np.all(std > 0):
        raise ValueError(f"mean {mean}, std {std}")
    if resize.get("max_size") is not None:
        raise ValueError(f"max_size {resize['max_size']}")
    height, width = crop["output_size"]
    return TowerTransform(
        tuple(int(edge) for edge in ([size] if isinstance(size, int) else size)),
        Image.Resampling(resize["interpolation"]),
        (int(height), int(width)),
        mean,
        std,
    )


def _letterbox(image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    edge = max(image.size)
    # Of an odd difference the last row or column is missing in training, too.
    left, top = (edge - image.width) // 2, (edge - image.height) // 2
    padded = Image.new("RGB", (image.width + 2 * left, image.height + 2 * top), fill)
    padded.paste(image, (left, top))
    return padded


def crop_area(image: ImageArray, area: float, place: tuple[float, float] = (0.5, 0.5)) -> ImageArray:
    """A part at the size of the whole, bilinear, corners at corners as in TensorFlow's crop.

    Args:
        image: (height, width, 3) uint8.
        area: part of the area that is kept, in the image's own proportions.
        place: of the part: (0, 0) at the upper left, (1, 1) at the lower right, the middle between.
    """
    side = float(np.sqrt(area))
    values = image.astype(np.float32)
    for axis, size in enumerate(image.shape[:2]):
        at = (place[axis] * (1 - side) + side * np.linspace(0.0, 1.0, size)) * (size - 1)
        low = np.floor(at).astype(np.int64)
        part = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, size - 1)
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return np.round(values).astype(np.uint8)
