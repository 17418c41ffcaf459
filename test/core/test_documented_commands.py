"""What README.md, CONTRIBUTING.md and docs/ tell a reader to type, and where their links lead.

What needs a running stack is tried in test/launch/test_documented_stack.py.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import documents
import pytest
from documents import CHECKOUT, DOCUMENTS, Command

from vla_ros import cli
from vla_ros.errors import MissingDependencyError
from vla_ros.launching.resolve import declared_arguments, find_launch_file, parse_assignments, resolve

OURS = documents.commands("vla-ros")
WHOLE = [command for command in OURS if command.is_whole]
LAUNCHES = [command for command in WHOLE if command.words[1] == "launch"]
ROS2_LAUNCHES = [command for command in documents.commands("ros2") if command.words[1:3] == ("launch", "vla_ros")]


def parsers_of(name: str) -> Iterator[argparse.ArgumentParser]:
    """The parser of a subcommand and those of its own subcommands."""
    subparsers = argparse.ArgumentParser(prog="vla-ros").add_subparsers()
    waiting = [importlib.import_module(f"vla_ros.commands.{name}").add_parser(subparsers)]
    for parser in waiting:
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += list(action.choices.values())


def examples() -> list[Command]:
    """The examples in the help of every subcommand."""
    found = []
    for name in cli.COMMANDS:
        for parser in parsers_of(name):
            text = (parser.epilog or "").replace("\\\n", " ")
            for line in text.splitlines():
                if line.strip().startswith("vla-ros "):
                    found.append(Command(f"{parser.prog} --help", tuple(shlex.split(line, comments=True)), True))
    return found


EXAMPLES = examples()


def assert_parses(command: Command) -> argparse.Namespace:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return cli.parse(command.words[1:])
    except SystemExit:
        raise AssertionError(f"{command}\n{said.getvalue()}") from None


def test_documents_are_read_whole() -> None:
    """The collector itself: so many commands there are at least, of these kinds, and from every kind of block."""
    assert len(WHOLE) > 100
    assert {command.words[1] for command in WHOLE} >= {"launch", "demo", "hardware", "calibrate", "train", "dataset"}
    assert {command.words[1] for command in EXAMPLES} == set(cli.COMMANDS)
    (folded,) = [
        command
        for command in WHOLE
        if command.place.startswith("README") and command.words[1] == "train" and "--config" in command.words
    ]
    assert folded.words.count("--dataset") == 2
    assert any(command.place.startswith("datasets.md") for command in WHOLE)  # fenced blocks
    # The second of a line.
    assert any(command.words[:2] == ("source", "install/setup.bash") for command in documents.commands("source"))


@pytest.mark.parametrize("command", WHOLE + EXAMPLES, ids=str)
def test_command_is_one_that_can_be_typed(command: Command) -> None:
    args = assert_parses(command)
    assert callable(args.run)


@pytest.mark.parametrize("command", [c for c in OURS if not c.is_whole], ids=str)
def test_command_in_a_sentence_names_what_there_is(command: Command) -> None:
    name = command.words[1] if len(command.words) > 1 else None
    if name is None or name.startswith("--"):
        return
    assert name in cli.COMMANDS
    known = {option for parser in parsers_of(name) for option in parser._option_string_actions}
    assert {word for word in command.words if word.startswith("--")} <= known


def assert_launches(name: str, words: list[str], place: str) -> None:
    """Resolves a launch file with the arguments of a command, up to a real driver's own files."""
    path = find_launch_file(name)
    given = parse_assignments([word for word in words if ":=" in word])
    declared = {argument.name for argument in declared_arguments(path, given)}
    assert set(given) <= declared, place
    try:
        graph = resolve(path, given)
    except MissingDependencyError:
        if given.get("hardware") != "real" and not name.startswith("camera_"):
            raise
    else:
        assert graph.nodes


@pytest.mark.parametrize("command", LAUNCHES + [c for c in EXAMPLES if c.words[1] == "launch"], ids=str)
def test_launch_command_resolves(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    args = assert_parses(command)
    assert_launches(args.file, args.assignments, str(command))


@pytest.mark.parametrize("command", ROS2_LAUNCHES, ids=str)
def test_ros2_launch_command_resolves(command: Command) -> None:
    _, _, _, name, *words = command.words
    assert name.endswith(".launch.xml"), "`ros2 launch` takes whole names"
    if any(word.startswith("-") for word in words):
        assert words == ["-s"], f"{command}: what else does `ros2 launch` take?"
    elif words:
        assert_launches(name, words, str(command))


def test_driver_arguments_that_bringup_hands_on_are_declared() -> None:
    """docs/bringup.md lists them; `-s` has to list them, too."""
    text = (CHECKOUT / "docs/bringup.md").read_text(encoding="utf-8")
    listed = re.search(r"lists them\): ([^.]+)\.", text).group(1)
    for names, robot in zip(listed.split(";"), ("fr3", "ur5e"), strict=True):
        given = {"robot": robot, "hardware": "real"}
        declared = {item.name for item in declared_arguments(find_launch_file("bringup"), given)}
        named = set(re.findall(r"`(\w+)`", names))
        assert len(named) >= 4
        assert named <= declared


# They need nothing that isn't in the package, start nothing, and are over at once. What others do has tests of its own.
CHEAP = [
    command
    for command in WHOLE
    if command.words[1:3] in [("contract", "show"), ("contract", "diff"), ("calibrate", "board")]
    and not any(word.endswith(".yaml") for word in command.words)
]


@pytest.mark.parametrize("command", CHEAP, ids=str)
def test_cheap_command_runs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main(command.words[1:])
    # `diff` says by its code whether there is a difference.
    assert code == (1 if "diff" in command.words else 0)
    output = capfd.readouterr().out
    assert output
    if "--out" in command.words:
        assert Path(command.words[command.words.index("--out") + 1]).stat().st_size > 1000


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"  vla-ros {name}" in capsys.readouterr().out


def test_make_has_every_target_that_is_named() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for command in documents.commands("make") for word in command.words[1:] if "=" not in word}
    assert named
    assert named <= targets | {"git"}


def test_files_that_pip_is_given_exist() -> None:
    files = [
        w for c in documents.commands("pip") for w, before in zip(c.words[1:], c.words, strict=False) if before == "-r"
    ]
    assert files
    for name in files:
        assert (CHECKOUT / name.removeprefix("src/vla_ros/")).is_file(), name


LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
FILE = re.compile(
    r"`((?:config|docs|launch|urdf|scripts|test|vla_ros|interfaces|constraints|nodes|recording)/[\w./*<>-]+)`"
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link, _ in LINK.findall(text):
        assert "://" in link or (document.parent / link).exists(), link
    for name in FILE.findall(text):
        pattern = re.sub(r"<\w+>|\bNAME\b", "*", name).rstrip("/")
        assert any(any(place.glob(pattern)) for place in (CHECKOUT, CHECKOUT / "vla_ros")), name
