"""`vla-ros export`: bags into datasets, by one process and by several, gone on with, and failures by name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("av", "pyarrow", "rosbags"):
    pytest.importorskip(package)

import bags

from vla_ros import cli
from vla_ros.commands.export_source import find_episodes, identity
from vla_ros.contract import load_contract
from vla_ros.errors import DatasetError
from vla_ros.recording.opening import open_any
from vla_ros.recording.reading import read_episode
from vla_ros.recording.synchronise import make_frames

CONTRACT = "libero"
# 8x6 pixels of noise leave nothing to a codec that halves the colours' resolution: only the number of frames is judged.
DURATIONS_S = (2.0, 1.5, 1.0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes, one of them a failure."""
    folder = tmp_path_factory.mktemp("recorded")
    for number, duration_s in enumerate(DURATIONS_S):
        outcome = "failure" if number == 1 else "success"
        bags.EpisodeBag(number=number, duration_s=duration_s, outcome=outcome).write(folder / f"episode_{number:06d}")
    return folder


@pytest.fixture
def episodes(recorded: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(recorded, tmp_path / "episodes"))


def run(words: Sequence[Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = cli.main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def export(folder: Path, to: Path, capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, dict[str, Any]]:
    return run(["export", folder, "--to", to, "--contract", CONTRACT, *words], capsys)


@pytest.mark.parametrize("processes", [1, 2])
def test_dataset_holds_what_the_bags_say(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], processes: int
) -> None:
    code, found = export(recorded, tmp_path / "d", capsys, "--processes", processes)
    assert (code, found["failed"], len(found["written"])) == (0, {}, 3)
    _, dataset = open_any(tmp_path / "d")
    assert dataset.schema.contract == load_contract(CONTRACT)
    for index, folder in enumerate(sorted(recorded.iterdir())):
        _, wanted = make_frames(read_episode(folder), load_contract(CONTRACT))
        read = dataset.read(index)
        assert read.name == identity(folder) == f"{folder.name}@{bags.START_NS - bags.S // 10 + 2_000_000}"
        assert read.tasks == wanted.tasks
        for name, values in wanted.columns.items():
            np.testing.assert_array_equal(read.columns[name], values)
        assert len(list(read.read_images())) == len(list(wanted.read_images()))


def test_one_process_and_several_write_the_same_bytes_but_for_videos(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for processes in (1, 2):
        export(recorded, tmp_path / str(processes), capsys, "--processes", processes)
    files = [
        path.relative_to(tmp_path / "1")
        for path in (tmp_path / "1").rglob("*.*")
        if path.is_file() and path.suffix != ".mp4"
    ]
    assert len(files) >= 5
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


def test_only_episodes_of_an_outcome_and_later_the_rest(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, first = export(recorded, tmp_path / "d", capsys, "--outcome", "success", "--processes", 1)
    assert [name.split("@")[0] for name in first["written"]] == ["episode_000000", "episode_000002"]
    assert first["left_out"] == 1
    code, second = export(recorded, tmp_path / "d", capsys, "--processes", 1)
    assert (code, [name.split("@")[0] for name in second["written"]]) == (0, ["episode_000001"])
    assert len(second["skipped"]) == 2
    assert len(open_any(tmp_path / "d")[1].names) == 3


def test_episode_that_fails_is_named_and_the_others_are_written(
    episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = next((episodes / "episode_000000").glob("*.mcap"))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    code, found = export(episodes, tmp_path / "d", capsys, "--processes", 1)
    assert code == 1
    assert [name.split("@")[0] for name in found["written"]] == ["episode_000001", "episode_000002"]
    assert list(found["failed"]) == [str(episodes / "episode_000000")]


def test_episode_with_torn_metadata_is_named_and_the_others_are_written(
    episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (episodes / "episode_000001" / "metadata.yaml").write_text("")
    code, found = export(episodes, tmp_path / "d", capsys, "--processes", 1)
    assert code == 1
    assert [name.split("@")[0] for name in found["written"]] == ["episode_000000", "episode_000002"]
    assert "metadata.yaml can't be read" in found["failed"][str(episodes / "episode_000001")]


def test_words_in_the_metadata_stand_for_a_lost_or_torn_episode_json(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = bags.EpisodeBag(number=2, duration_s=DURATIONS_S[2])
    folder = one.write(tmp_path / "e" / "episode_000002", custom={"vla_ros.episode": one.info.to_json()})
    text = (folder / "episode.json").read_text()
    (folder / "episode.json").write_text(text[:100])
    for name in ("torn", "lost"):
        code, found = export(tmp_path / "e", tmp_path / name, capsys, "--outcome", "success", "--processes", 1)
        assert (code, found["failed"], len(found["written"]), found["left_out"]) == (0, {}, 1, 0)
        (folder / "episode.json").unlink(missing_ok=True)


def test_files_of_one_name_are_episodes_of_their_own_and_a_bags_file_means_the_bag(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loose = []
    for number in (1, 2):
        file = next((recorded / f"episode_{number:06d}").glob("*.mcap"))
        (tmp_path / str(number)).mkdir()
        loose.append(Path(shutil.copy(file, tmp_path / str(number) / "take.mcap")))
    # The first messages of these bags came at one time, as they never do: the second one is made later.
    later = bags.EpisodeBag(
        mend=lambda found: [dataclasses.replace(found[0], received_ns=found[0].received_ns + 5), *found[1:]],
        number=2,
        duration_s=1.0,
    )
    shutil.copy(next(later.write(tmp_path / "later").glob("*.mcap")), loose[1])
    _, found = run(["export", *loose, "--to", tmp_path / "d", "--contract", CONTRACT], capsys)
    assert (found["skipped"], found["failed"], len(set(found["written"]))) == ([], {}, 2)
    inside = next((recorded / "episode_000001").glob("*.mcap"))
    assert find_episodes([inside, recorded / "episode_000001"]) == [recorded / "episode_000001"]


def test_frames_are_not_written_twice_in_other_pieces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mend(messages: list[Any]) -> list[Any]:
        begin, end = bags.START_NS + 0.9 * bags.S, bags.START_NS + 1.2 * bags.S
        return [m for m in messages if not (m.topic.endswith("base/image") and begin < m.received_ns < end)]

    bags.EpisodeBag(mend=mend).write(tmp_path / "e" / "episode_000012")
    _, found = export(tmp_path / "e", tmp_path / "d", capsys, "--processes", 1)
    assert [name.rpartition("#")[2] for name in found["written"]] == ["0", "1"]
    code, found = export(tmp_path / "e", tmp_path / "d", capsys, "--processes", 1, "--tolerance-s", 1)
    assert (code, found["written"]) == (1, [])
    assert "in other pieces" in next(iter(found["failed"].values()))


def test_unfinished_episodes_are_left_alone(episodes: Path) -> None:
    (episodes / "episode_000002").rename(episodes / "episode_000002.part")
    assert [path.name for path in find_episodes([episodes])] == ["episode_000000", "episode_000001"]
    with pytest.raises(DatasetError, match="no bag and holds none"):
        find_episodes([episodes / "nothing"])


def test_cleaning_drops_frames_and_all_episodes_keep_the_same_columns(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = export(recorded, tmp_path / "d", capsys, "--clean", "idle=drop,outliers=flag", "--processes", 1)
    assert (code, found["failed"]) == (0, {})
    names = [column.name for column in open_any(tmp_path / "d")[1].schema.columns]
    assert {"is_idle", "is_outlier", "is_jump"} <= set(names)
    assert "is_duplicate" not in names


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--clean", "idle=wash"], "WHAT=drop"),
        (["--option", "codec"], "NAME=VALUE"),
        (["--option", "codec=vhs"], "vhs"),
        (["--processes", "0"], "at least 1"),
        (["--tolerance-s", "nan"], "finite"),
        (["--tolerance-s", "-1"], "at least 0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    recorded: Path, tmp_path: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(recorded), "--to", str(tmp_path / "d"), "--contract", CONTRACT, *words]) == 2
    assert problem in capsys.readouterr().err


def test_two_folders_whose_episodes_have_one_number_go_into_one_dataset(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export(recorded / "episode_000002", tmp_path / "d", capsys)
    monkeypatch.setattr(bags, "START_NS", bags.START_NS + bags.S)
    other = bags.EpisodeBag(number=2, duration_s=1.1).write(tmp_path / "other" / "episode_000002")
    _, found = export(other, tmp_path / "d", capsys)
    assert len(found["written"]) == 1
    assert len(open_any(tmp_path / "d")[1].names) == 2
