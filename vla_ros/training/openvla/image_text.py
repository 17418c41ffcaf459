"""Pictures with questions and answers, learned beside actions so that a model doesn't forget what it knew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vla_ros.errors import DatasetError
from vla_ros.types import ImageArray

_QUESTION_KEYS = ("question", "prompt")


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        image: file of the picture.
        question: about it.
        answer: to be learnt.
    """

    image: Path
    question: str
    answer: str

    def read_image(self) -> ImageArray:
        """(h, w, 3) uint8 rgb.

        Raises:
            DatasetError: if the file can't be read.
        """
        try:
            with Image.open(self.image) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise DatasetError(
                f"{self.image} can't be read as an image ({error}); replace it or drop its line"
            ) from error


def read_image_text(folder: Path | str) -> tuple[Asked, ...]:
    """Every question of a folder that holds pictures and one `.jsonl`, a line an object with `image`, `question` (or
    `prompt`) and `answer`, the image's path relative to the folder.

    Raises:
        DatasetError: naming the line that can't be used.
    """
    folder = Path(folder).expanduser()
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        raise DatasetError(f"{folder} has {len(files)} .jsonl files; one is needed, a line a question")
    found = []
    for number, line in enumerate(files[0].read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            found.append(_read_line(line, folder, f"{files[0]}, line {number}"))
    if not found:
        raise DatasetError(f"{files[0]} is empty; write a line a question")
    return tuple(found)


def _read_line(line: str, folder: Path, where: str) -> Asked:
    try:
        data: Any = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{where} isn't JSON ({error})") from error
    keys = data if isinstance(data, dict) else {}
    question = next((keys[key] for key in _QUESTION_KEYS if key in keys), None)
    texts = {"image": keys.get("image"), "question": question, "answer": keys.get("answer")}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise DatasetError(f"{where} has {key} {text!r}; every line needs image, question and answer, each a text")
    image = (folder / str(texts["image"])).resolve()
    if not image.is_relative_to(folder.resolve()) or not image.is_file():
        raise DatasetError(f"{where} names {texts['image']!r}, which is no file in {folder}")
    return Asked(image, str(texts["question"]), str(texts["answer"]))
