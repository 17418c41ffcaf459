"""The recorder in the launch files."""

from __future__ import annotations

import pytest

from vla_ros.config import package_share
from vla_ros.launching.resolve import resolve

LAUNCH = package_share() / "launch"


def recorders(path: str, **arguments: str) -> list:
    graph = resolve(LAUNCH / path, {"robot": "panda", **arguments}, {})
    return [node for node in graph.nodes if node.executable == "recorder_node"]


@pytest.mark.parametrize(("record", "count"), [("true", 1), ("false", 0)])
def test_bringup_has_a_recorder_when_asked_for(record, count):
    found = recorders("bringup.launch.xml", record=record, folder="/data/evening")
    assert len(found) == count
    for node in found:
        values = {parameter.name: parameter.value for parameter in node.parameters}
        assert (values["folder"], values["rig"], values["task"]) == ("/data/evening", "panda_table", "")


def test_record_launch_file_passes_on_what_it_is_given():
    (node,) = recorders("record.launch.xml", episode_task="pick up the cup", storage="sqlite3", images="jpeg")
    values = {parameter.name: parameter.value for parameter in node.parameters}
    assert (values["task"], values["storage"], values["images"]) == ("pick up the cup", "sqlite3", "jpeg")
