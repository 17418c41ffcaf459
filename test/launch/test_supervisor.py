"""The supervisor with real processes: small programs in an ament prefix, started, watched and ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vla_ros.errors import ConfigError
from vla_ros.launching.graph import LaunchGraph, NodeAction, Parameter
from vla_ros.launching.supervisor import Death, Supervisor

CHECKOUT = Path(__file__).parents[2]
# Generous: a loaded machine starts a Python in seconds.
PATIENCE_S = 30.0

# Each says it is ready once its signal handlers are in place, and writes its own and its children's pids.
PREAMBLE = """#!{python} -S
import os, signal, subprocess, sys, time
def ready(*pids):
    with open(os.environ["PIDS"], "a") as file:
        print(os.getpid(), *pids, file=file)
    print("ready", flush=True)
"""
PROGRAMS = {
    "obedient": "ready()\ntry:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    print('bye')\n",
    "deaf": "signal.signal(signal.SIGINT, signal.SIG_IGN)\nready()\ntime.sleep(600)\n",
    "stubborn": "for n in (2, 15): signal.signal(n, signal.SIG_IGN)\nready()\ntime.sleep(600)\n",
    "parent": (
        "sleep = ['sleep', '600']\n"
        "same_group = subprocess.Popen(sleep)\n"
        "own_session = subprocess.Popen(sleep, start_new_session=True)\n"
        "script = \"trap '' INT TERM HUP; sleep 600 & sleep 600\"\n"
        "deaf = subprocess.Popen(['sh', '-c', script], start_new_session=True)\n"
        "ready(same_group.pid, own_session.pid, deaf.pid)\ntime.sleep(600)\n"
    ),
    "counting": (
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "ready(os.getsid(0))\n"
        "signal.pause(); time.sleep(0.5)\n"
    ),
    "leaver": "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\nready(child.pid)\n",
    "failing": "ready()\ntime.sleep(0.2)\nsys.exit(3)\n",
    "crashing": "ready()\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    "chatty": "print('out'); print('err', file=sys.stderr); print('no newline', end='')\n",
    "telling": "print(sys.argv[1:]); print(open(sys.argv[-1]).read())\nprint(os.environ['EXTRA'])\n",
}


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An ament prefix with the programs above, and the file that collects the pids of everything they start."""
    for folder in ("share/ament_index/resource_index/packages", "lib/fake_nodes"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/fake_nodes").touch()
    for name, body in PROGRAMS.items():
        program = tmp_path / "lib/fake_nodes" / name
        program.write_text(PREAMBLE.format(python=sys.executable) + body)
        program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    yield tmp_path
    for pid in started_pids(tmp_path):
        # A failed test leaves some; ours alone have this file in their environment.
        with contextlib.suppress(OSError):
            if str(tmp_path / "pids").encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)


def started_pids(prefix):
    file = prefix / "pids"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


def wait_until_started(prefix, count):
    file = prefix / "pids"
    wait_for(lambda: file.exists() and len(file.read_text().splitlines()) == count, f"{count} programs to start")


def assert_nobody_left(prefix):
    assert started_pids(prefix)
    wait_for(lambda: not any(map(is_alive, started_pids(prefix))), "everything to end")


def graph_of(*programs, **fields):
    nodes = tuple(NodeAction("fake_nodes", program, "test:1", output="screen", **fields) for program in programs)
    return LaunchGraph(Path("test"), (), nodes)


def required(program):
    return NodeAction("fake_nodes", program, "test:2", name="the_important_one", is_required=True)


def quick(graph, **options):
    return Supervisor(graph, sigterm_after_s=0.5, sigkill_after_s=0.5, **options)


def wait_for_death(supervisor):
    wait_for(lambda: supervisor.poll() or not supervisor.is_running, "a node to end")
    return supervisor.poll()


def test_stop_ends_obedient_nodes_with_zero(prefix, capfd):
    with quick(graph_of("obedient", "obedient")) as supervisor:
        wait_until_started(prefix, 2)
        assert supervisor.poll() is None
        assert supervisor.is_running
        assert supervisor.stop() == 0
        assert not any(map(is_alive, started_pids(prefix)))
        assert not supervisor.pids
    out = capfd.readouterr().out
    assert "[obedient] bye\n" in out
    assert "[obedient-2] bye\n" in out


@pytest.mark.parametrize(("program", "last_signal"), [("deaf", "SIGTERM"), ("stubborn", "SIGKILL")])
def test_stop_escalates_until_a_stubborn_node_is_gone(program, last_signal, prefix, capfd):
    with quick(graph_of(program)) as supervisor:
        wait_until_started(prefix, 1)
        assert supervisor.stop() == 0
        assert not any(map(is_alive, started_pids(prefix)))
    err = capfd.readouterr().err
    assert f"[{program}] still running, sending {last_signal}\n" in err


def test_stop_leaves_no_children_of_children_whatever_their_session(prefix):
    with quick(graph_of("parent")) as supervisor:
        wait_until_started(prefix, 1)
        assert len(started_pids(prefix)) == 4
        assert all(map(is_alive, started_pids(prefix)))
        assert supervisor.stop() == 0
        assert not any(map(is_alive, started_pids(prefix)))


def test_children_end_with_a_node_that_leaves_them_behind(prefix):
    with quick(graph_of("leaver", "obedient")) as supervisor:
        wait_until_started(prefix, 2)
        wait_for(lambda: supervisor.poll() is None and supervisor.deaths, "the leaver to end")
        assert supervisor.deaths == (Death("leaver", 0, is_required=False),)
        child = next(line.split()[1] for line in (prefix / "pids").read_text().splitlines() if " " in line)
        assert not is_alive(int(child))
        assert supervisor.is_running


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("failing", "ended with exit code 3"),
        ("crashing", "was killed by SIGSEGV"),
        ("leaver", "ended with exit code 0"),
    ],
)
def test_death_of_a_required_node_is_named_and_fails(program, text, prefix, capfd):
    graph = graph_of("obedient")
    with quick(LaunchGraph(Path("test"), (), (*graph.nodes, required(program)))) as supervisor:
        death = wait_for_death(supervisor)
        assert death.label == "the_important_one"
        assert supervisor.stop() == 1
    assert f"[launch] required node 'the_important_one' {text}\n" in capfd.readouterr().err
    assert text in str(death)
    assert_nobody_left(prefix)


def test_end_of_an_ordinary_node_leaves_the_others_alone(prefix):
    with quick(graph_of("failing", "obedient")) as supervisor:
        wait_for(lambda: supervisor.poll() is None and supervisor.deaths, "the failing node")
        wait_until_started(prefix, 2)
        assert supervisor.deaths == (Death("failing", 3, is_required=False),)
        assert supervisor.is_running
        assert supervisor.stop() == 0


def test_exit_code_tells_whether_all_ended_well(prefix):
    for program, exit_code in (("chatty", 0), ("failing", 1)):
        with quick(graph_of(program)) as supervisor:
            assert supervisor.wait(lambda: False) is None
            assert supervisor.stop() == exit_code


def test_respawned_node_comes_back(prefix):
    with quick(graph_of("failing", is_respawned=True, respawn_delay_s=0.1)) as supervisor:
        wait_for(lambda: supervisor.poll() is None and len(supervisor.deaths) >= 2, "two ends")
        assert supervisor.is_running


def test_output_is_prefixed_and_logged(prefix, tmp_path, capfd):
    with quick(graph_of("chatty"), log_dir=tmp_path / "logs") as supervisor:
        supervisor.wait(lambda: False)
    captured = capfd.readouterr()
    assert "[chatty] out\n" in captured.out
    assert "[chatty] no newline\n" in captured.out
    assert "[chatty] err\n" in captured.err
    assert sorted((tmp_path / "logs/chatty.log").read_text().splitlines()) == ["err", "no newline", "out"]


def test_quiet_keeps_the_screen_free_and_the_log_complete(prefix, tmp_path, capfd):
    with quick(graph_of("chatty"), log_dir=tmp_path / "logs", is_quiet=True) as supervisor:
        supervisor.wait(lambda: False)
    captured = capfd.readouterr()
    assert "[chatty]" not in captured.out + captured.err
    assert "out" in (tmp_path / "logs/chatty.log").read_text()


def test_node_gets_its_arguments_parameters_and_environment(prefix, capfd):
    graph = graph_of("telling", name="t", parameters=(Parameter("rate", 5.0),), env=(("EXTRA", "extra value"),))
    with quick(graph) as supervisor:
        supervisor.wait(lambda: False)
    out = capfd.readouterr().out
    assert "[t] ['--ros-args', '-r', '__node:=t', '--params-file', " in out
    assert "[t]     rate: 5.0\n" in out
    assert "[t] extra value\n" in out


def test_missing_executable_is_named_before_anything_starts(prefix):
    supervisor = quick(graph_of("obedient", "no_such_program"))
    with pytest.raises(ConfigError, match="test:1: no executable 'no_such_program'"):
        supervisor.start()
    assert not supervisor.pids
    assert not (prefix / "pids").exists()


def test_nodes_die_when_their_guard_is_killed(prefix):
    with quick(graph_of("stubborn")) as supervisor:
        wait_until_started(prefix, 1)
        os.kill(supervisor.pids["stubborn"], signal.SIGKILL)
        assert_nobody_left(prefix)
        wait_for_death(supervisor)
        assert supervisor.deaths == (Death("stubborn", -signal.SIGKILL, is_required=False),)


# The command as a process of its own

COMMAND = """
import argparse, sys
from vla_ros.commands import launch
parser = argparse.ArgumentParser()
launch.add_parser(parser.add_subparsers())
args = parser.parse_args(["launch", *sys.argv[1:]])
sys.exit(args.run(args))
"""


@pytest.fixture
def start_command(prefix):
    """Starts `vla-ros launch` on the given programs; `required` marks the ones with that in their line."""
    running = []

    def start(*programs, words=()):
        lines = [f'<node pkg="fake_nodes" exec="{name.split()[0]}">{mark(name)}</node>' for name in programs]
        path = prefix / "test.launch.xml"
        path.write_text(f"<launch>{''.join(lines)}</launch>")
        environ = os.environ | {"PYTHONPATH": str(CHECKOUT)}
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(path), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=True,
            # Under nohup, as the tests may be, it would rightly ignore a hang-up.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        running.append(process)
        return process

    def mark(name):
        return '<env name="VLA_ROS_REQUIRED" value="true"/>' if "required" in name else ""

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_command_ends_with_zero_and_nobody_left_after_a_signal(number, start_command, prefix):
    process = start_command("obedient", "parent")
    wait_until_started(prefix, 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert f"[launch] {number.name}: stopping" in out
    assert "[obedient] bye" in out
    assert not any(map(is_alive, started_pids(prefix)))


def test_control_c_in_the_terminal_reaches_a_node_once(start_command, prefix):
    process = start_command("counting")
    wait_until_started(prefix, 1)
    node, session = started_pids(prefix)
    assert session not in (process.pid, node)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert out.count("[counting] interrupted") == 1
    assert process.returncode == 0


def test_command_survives_a_second_interrupt_and_still_ends_everything(start_command, prefix):
    process = start_command("deaf")
    wait_until_started(prefix, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert not any(map(is_alive, started_pids(prefix)))


def test_command_fails_and_names_the_required_node_that_died(start_command, prefix):
    process = start_command("obedient", "failing required", words=["--json"])
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "required node 'failing' ended with exit code 3" in err
    assert json.loads(out.splitlines()[-1]) == {"exit_code": 1, "ended": [{"node": "failing", "exit_code": 3}]}
    assert not any(map(is_alive, started_pids(prefix)))


def test_nobody_survives_a_killed_supervisor(start_command, prefix):
    process = start_command("obedient", "deaf", "parent")
    wait_until_started(prefix, 3)
    assert len(started_pids(prefix)) == 6
    process.kill()
    process.wait()
    assert_nobody_left(prefix)
