"""`vla-ros dataset`: info, statistics, merge, split, drop, convert, import and finish on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("av", "pyarrow"):
    pytest.importorskip(package)

from vla_ros import cli
from vla_ros.recording.dataset import Column, EpisodeFrames, ImageColumn, Schema
from vla_ros.recording.formats import lerobot
from vla_ros.types import ImageArray

IMAGE = "observation.images.base"
SCHEMA = Schema(10.0, "panda", (Column("action", "float32", (2,), ("x", "y")),), (ImageColumn(IMAGE, 16, 16, "base"),))


def make(seed: int) -> EpisodeFrames:
    def read_images() -> Iterator[tuple[str, int, ImageArray]]:
        for frame in range(3):
            yield IMAGE, frame, np.full((16, 16, 3), 40 * frame + seed, dtype=np.uint8)

    action = np.full((3, 2), seed, dtype=np.float32)
    return EpisodeFrames(f"take {seed}", {"action": action}, ("reach",) * 3, read_images, {"outcome": "success"})


def write(folder: Path, seeds: range) -> Path:
    with lerobot.create(folder, SCHEMA, {}) as writer:
        for seed in seeds:
            writer.add(make(seed))
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert cli.main(["dataset", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_info_says_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", range(4))
    found = run(capsys, "info", folder, "--episodes")
    assert (found["format"], found["episodes"], found["frames"], found["robot"]) == ("lerobot", 4, 12, "panda")
    assert (found["tasks"], found["outcomes"], found["contract"]) == ({"reach": 4}, {"success": 4}, None)
    assert found["episode_list"][2]["name"] == "take 2"
    assert cli.main(["dataset", "info", str(folder)]) == 0
    assert "float32 [2]" in capsys.readouterr().out


def test_merge_split_and_drop_keep_the_right_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", range(3)), write(tmp_path / "b", range(3, 6))
    both = tmp_path / "both"
    assert run(capsys, "merge", a, b, "--to", both)["episodes"] == 6
    assert run(capsys, "merge", a, b, "--to", both)["copied"] == 0
    parts = run(capsys, "split", both, "--parts", "train=0.5,val=0.5", "--to", tmp_path)["parts"]
    assert {name: part["episodes"] for name, part in parts.items()} == {"train": 3, "val": 3}
    assert lerobot.open_dataset(tmp_path / "val").names == ("take 3", "take 4", "take 5")
    run(capsys, "drop", both, "take 1", "4", "--to", tmp_path / "fewer")
    fewer = lerobot.open_dataset(tmp_path / "fewer")
    assert fewer.names == ("take 0", "take 2", "take 3", "take 5")
    assert [fewer.read(index).columns["action"][0, 0] for index in range(4)] == [0.0, 2.0, 3.0, 5.0]


def test_part_that_was_drawn_otherwise_is_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else an episode would be in two parts, or one that was dropped still be there."""
    folder = write(tmp_path / "a", range(4))
    split = ["dataset", "split", str(folder), "--parts", "train=0.5,val=0.5", "--to", str(tmp_path)]
    assert cli.main(split) == cli.main(split) == 0
    assert cli.main([*split, "--seed", "3"]) == 2
    assert "aren't to be in it" in capsys.readouterr().err
    drop = ["dataset", "drop", str(folder), "1"]
    assert cli.main([*drop, "--to", str(tmp_path / "b")]) == 0
    assert cli.main([*drop, "2", "--to", str(tmp_path / "b")]) == 2
    assert "the first 'take 2'" in capsys.readouterr().err
    assert lerobot.open_dataset(tmp_path / "b").names == ("take 0", "take 2", "take 3")


def test_convert_encodes_anew_when_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", range(1))
    run(capsys, "convert", folder, "--to", tmp_path / "copy")
    run(capsys, "import", folder, "--to", tmp_path / "av1", "--option", "codec=av1")
    videos = [next((tmp_path / name).rglob("*.mp4")) for name in ("a", "copy", "av1")]
    infos = [json.loads((tmp_path / name / "meta/info.json").read_text()) for name in ("a", "copy", "av1")]
    assert [info["features"][IMAGE]["info"]["video.codec"] for info in infos] == ["h264", "h264", "av1"]
    assert videos[0].read_bytes() == videos[1].read_bytes() != videos[2].read_bytes()


def test_statistics_are_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", range(3))
    stats = folder / "meta/stats.json"
    wanted = json.loads(stats.read_text())
    stats.write_text("{}")
    found = run(capsys, "stats", folder)
    assert found["statistics"]["action"]["mean"] == [1.0, 1.0]
    assert stats.read_text() == "{}"
    assert run(capsys, "stats", folder, "--write")["is_written"]
    assert json.loads(stats.read_text())["action"] == wanted["action"]


def test_interrupted_dataset_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a"
    writer = lerobot.create(folder, SCHEMA, {})
    writer.add(make(0))
    writer.__exit__(KeyboardInterrupt, None, None)
    assert cli.main(["dataset", "info", str(folder)]) == 2
    assert "vla-ros dataset finish" in capsys.readouterr().err
    assert run(capsys, "finish", folder)["episodes"] == 1
    assert lerobot.open_dataset(folder).names == ("take 0",)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["info", "nowhere"], "no such dataset"),
        (["drop", "a", "take 9", "--to", "b"], "no episode 'take 9'"),
        (["drop", "a", "0", "--to", "a"], "is a source itself"),
        (["split", "a", "--parts", "train=0.9", "--to", "b"], "sum to 1"),
        (["split", "a", "--parts", "train", "--to", "b"], "NAME=PART"),
        (["merge", "a", "a", "--to", "b"], "given twice"),
        (["convert", "a", "--to", "b", "--option", "kolour=1"], "kolour"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], problem: str
) -> None:
    write(tmp_path / "a", range(2))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["dataset", *words]) == 2
    assert problem in capsys.readouterr().err
