"""What a kill, a cut and a full disk leave is finished, and finished episodes aren't touched."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rosbags.rosbag2")

from vla_ros import cli
from vla_ros.benchmarks.options import Options
from vla_ros.benchmarks.recording import cuts
from vla_ros.benchmarks.recording.benchmark import BENCHMARK, PARTS
from vla_ros.benchmarks.recording.crash import judge
from vla_ros.benchmarks.recording.crash_writer import EVENTS, STATES, Truth, TruthFile, message, numbers
from vla_ros.benchmarks.registry import BENCHMARKS
from vla_ros.benchmarks.requirement import judge as hold
from vla_ros.contract import load_rig
from vla_ros.errors import RecordingError
from vla_ros.recording.bag_writer import STORAGES, Topic, storage_path
from vla_ros.recording.disk import DiskLimits
from vla_ros.recording.episode import INFO_FILE, EpisodeInfo, read_info
from vla_ros.recording.recorder import Recorder, RecorderOptions
from vla_ros.recording.repair import repair_bag, repair_folder
from vla_ros.recording.store import EpisodeStore

RIG = load_rig("panda_table")


def record_part(folder: Path, storage: str, count: int, size: int = 2000) -> Path:
    """An unfinished episode with numbered messages and everything in the file, as a process leaves it."""
    recorder = Recorder(folder, EVENTS, RecorderOptions(storage=storage, disk=DiskLimits(0)))
    recorder.start(lambda number: EpisodeInfo(number, "pick", "panda", RIG, started_ns=1000))
    part = EpisodeStore(folder).unfinished()[0]
    for number in range(count):
        recorder.add(STATES, 2000 + number, message(number, size))
    recorder._writer.abort()
    recorder.store.release()
    return part


def chunked(path: Path) -> list[int]:
    """Where the records of an MCAP file begin, by a walk of our own."""
    data, position, found = path.read_bytes(), 8, []
    while position + 9 <= len(data):
        found.append(position)
        position += 9 + int.from_bytes(data[position + 1 : position + 9], "little")
    return found


KILLED = """
import sys
from pathlib import Path
from vla_ros.benchmarks.recording.crash_writer import record_for_ever
record_for_ever(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_killed_recorder_loses_no_finished_episode_and_less_than_a_second_of_the_open_one(storage, tmp_path: Path):
    folder, path = tmp_path / "episodes", tmp_path / "truth"
    truth = TruthFile(path)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), storage, str(path), "2"])
    deadline_s = time.monotonic() + 30.0
    while truth.read().messages == 0 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    # In the second episode, which is long.
    time.sleep(2.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = truth.read()
    assert said.finished == 1
    found = judge(folder, said)
    assert found["lost"] == []
    # The flush every 0.4 s, and what a loaded machine adds.
    assert found["tail_lost_s"] < 1.0


def test_judge_of_the_benchmark_sees_a_lost_episode_and_a_lost_message(tmp_path: Path):
    record_part(tmp_path, "mcap", 50)
    assert judge(tmp_path, Truth(1, 0, 0))["lost"]
    record_part(tmp_path, "mcap", 50)
    # What it said it had added last is two seconds after what is there.
    assert judge(tmp_path, Truth(1, 60, 2049 + 2_000_000_000))["tail_lost_s"] == pytest.approx(2.0)


@pytest.mark.parametrize(("episode", "outcome"), [("episode_000000", "failure"), ("episode_000007", "unlabelled")])
def test_repaired_episode_has_its_own_outcome_and_not_that_of_another_recorders(episode, outcome, tmp_path: Path):
    recorder = Recorder(tmp_path, EVENTS, RecorderOptions(disk=DiskLimits(0)))
    recorder.start(lambda number: EpisodeInfo(number, "pick", "panda", RIG, started_ns=1000))
    recorder.say("failure", 2000, episode=episode)
    recorder._writer.abort()
    recorder.store.release()
    (repaired,) = repair_folder(tmp_path)
    assert read_info(repaired.folder).outcome == outcome


@pytest.mark.parametrize("storage", STORAGES)
def test_unfinished_episode_is_finished_with_all_its_messages_and_says_so(storage, tmp_path: Path):
    part = record_part(tmp_path, storage, 500)
    repaired = repair_folder(tmp_path)
    folder = tmp_path / "episode_000000"
    assert [item.folder for item in repaired] == [folder]
    assert not part.exists()
    assert numbers(folder) == (list(range(500)), 2499)
    info = read_info(folder)
    assert (info.outcome, info.ended_ns, info.task) == ("unlabelled", 2499, "pick")
    assert "its process ended" in info.recovered
    assert repair_folder(tmp_path) == []
    assert sorted(path.suffix for path in folder.iterdir()) == sorted(
        [".json", ".yaml", storage_path(folder, storage).suffix]
    )


def test_episode_without_its_own_file_takes_its_words_from_the_first_event(tmp_path: Path):
    part = record_part(tmp_path, "mcap", 10)
    expected = read_info(part)
    (part / INFO_FILE).unlink()
    repair_folder(tmp_path)
    info = read_info(tmp_path / "episode_000000")
    assert (info.task, info.rig, info.started_ns) == (expected.task, expected.rig, expected.started_ns)


def test_mcap_cut_at_any_byte_gives_all_messages_that_were_whole_before_it(tmp_path: Path):
    part = record_part(tmp_path / "source", "mcap", 1500)
    name = storage_path(part, "mcap").name
    whole = (part / name).read_bytes()
    rng = random.Random(0)
    borders = chunked(part / name)
    # Just beside each border of records, and anywhere.
    # By searching: a message is there if all of its bytes are.
    ends = [whole.index(message(number, 2000)) + 2012 for number in range(1500)]
    cuts_at = [border + offset for border in rng.sample(borders, 4) for offset in (-1, 0, 1, 9)]
    cuts_at += [rng.randrange(borders[3], len(whole)) for _ in range(15)]
    for trial, cut in enumerate(cuts_at):
        place = tmp_path / str(trial)
        shutil.copytree(part, place / part.name)
        (place / part.name / name).write_bytes(whole[:cut])
        expected = sum(end <= cut for end in ends)
        repaired = repair_folder(place)
        if cut < borders[2]:
            # Not even the first event, which has a chunk of its own, is whole.
            assert repaired[0].folder is None
            continue
        assert repaired[0].folder is not None, (cut, repaired)
        found, _ = numbers(repaired[0].folder)
        assert found == list(range(expected)), cut
        assert not (place / part.name).exists()


def test_zeros_at_the_end_and_a_damaged_chunk_cost_what_they_cover_and_are_named(tmp_path: Path):
    part = record_part(tmp_path, "mcap", 1500)
    path = storage_path(part, "mcap")
    data = bytearray(path.read_bytes())
    middle = data.find(message(700, 2000)) + 1000
    data[middle] ^= 1
    path.write_bytes(bytes(data) + bytes(5000))
    repaired = repair_folder(tmp_path)
    assert len(repaired[0].damage) == 2
    assert "is damaged and left out" in repaired[0].damage[0]
    found, _ = numbers(tmp_path / "episode_000000")
    assert 700 not in found
    missing = sorted(set(range(1500)) - set(found))
    # A chunk of 1 MiB holds some 500 of them, all in one place.
    assert missing == list(range(missing[0], missing[-1] + 1))
    assert len(missing) < 600
    assert "damaged" in read_info(tmp_path / "episode_000000").recovered


def test_sqlite3_cut_at_random_bytes_gives_a_beginning_of_its_messages(tmp_path: Path):
    part = record_part(tmp_path / "source", "sqlite3", 1500)
    name = storage_path(part, "sqlite3").name
    whole = (part / name).read_bytes()
    rng = random.Random(1)
    for trial in range(5):
        place = tmp_path / str(trial)
        shutil.copytree(part, place / part.name)
        cut = rng.randrange(len(whole) // 2, len(whole))
        (place / part.name / name).write_bytes(whole[:cut])
        repaired = repair_folder(place)
        assert repaired[0].folder is not None, repaired
        found, _ = numbers(repaired[0].folder)
        assert found == list(range(len(found)))
        # A page of 64 KiB holds thirty.
        assert len(found) >= 1500 * cut // len(whole) - 120
        assert repaired[0].damage


def test_what_is_no_bag_is_left_as_it_is_and_said(tmp_path: Path):
    part = record_part(tmp_path, "mcap", 10)
    path = storage_path(part, "mcap")
    path.write_bytes(b"something else" * 1000)
    repaired = repair_folder(tmp_path)
    assert repaired[0].is_left
    assert "isn't an MCAP file" in str(repaired[0])
    assert path.read_bytes() == b"something else" * 1000
    assert cli.main(["episodes", "repair", "--folder", str(tmp_path)]) == 1


def test_repair_while_somebody_records_is_refused(tmp_path: Path):
    record_part(tmp_path, "mcap", 10)
    with EpisodeStore(tmp_path) as store:
        store.acquire("recording an episode")
        with pytest.raises(RecordingError, match="is recording an episode"):
            repair_folder(tmp_path)


def test_bag_of_other_origin_that_was_not_closed_is_closed(tmp_path: Path):
    from vla_ros.recording.writer import EpisodeWriter

    writer = EpisodeWriter(tmp_path / "rosbag2_2026", "mcap")
    for number in range(20):
        writer.add(Topic("/other", "std_msgs/msg/String"), number, message(number, 10))
    writer.abort()
    assert repair_bag(tmp_path / "rosbag2_2026").messages == 20
    assert numbers(tmp_path / "rosbag2_2026")[0] == list(range(20))
    with pytest.raises(RecordingError, match="no bag file"):
        repair_bag(tmp_path)


def test_commands_list_repair_and_validate(tmp_path: Path, capsys):
    record_part(tmp_path, "mcap", 10)
    words = ["--folder", str(tmp_path), "--json"]
    assert cli.main(["episodes", "list", *words]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"][0]["state"] == "unfinished"
    assert cli.main(["episodes", "validate", *words]) == 1
    assert "isn't finished" in capsys.readouterr().out
    assert cli.main(["episodes", "repair", *words]) == 0
    assert json.loads(capsys.readouterr().out)["repaired"][0]["messages"] == 11
    assert cli.main(["episodes", "--folder", str(tmp_path)]) == 0
    assert "unlabelled" in capsys.readouterr().out
    # The rig's cameras aren't in it.
    assert cli.main(["episodes", "validate", *words, "0"]) == 1
    assert "no camera/base/image" in json.loads(capsys.readouterr().out)["episodes"][0]["errors"][0]
    assert cli.main(["episodes", "validate", "--folder", str(tmp_path), "7"]) == 2
    assert "no finished episode 7" in capsys.readouterr().err


def test_benchmark_is_registered_and_its_quick_cuts_hold_what_they_promise(monkeypatch):
    assert "recording" in BENCHMARKS
    assert BENCHMARK.chosen([]) == list(PARTS)
    monkeypatch.setattr(cuts, "_SECONDS", 0.6)
    results, _ = BENCHMARK.run(["cuts"], Options(is_quick=True, ticks=8))
    outcomes = hold(results, BENCHMARK.requirements(["cuts"]), is_quick=True)
    assert [outcome.requirement.key for outcome in outcomes if outcome.is_due and not outcome.holds_must] == []
