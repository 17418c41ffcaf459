"""Launch files resolved: substitutions, types, conditions, scopes, errors. Parity with ROS is tested in test/launch."""

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.commands import launch as launch_command
from vla_ros.config import package_share
from vla_ros.errors import ConfigError, MissingDependencyError, UnknownNameError, VlaRosError
from vla_ros.launching import templates
from vla_ros.launching.environment import node_environment, ros_for
from vla_ros.launching.graph import LaunchGraph, NodeAction, Parameter, ParameterFile
from vla_ros.launching.packages import Program, find_program, find_share
from vla_ros.launching.parameters import command_line, parameter_steps, typed_value
from vla_ros.launching.resolve import declared_arguments, find_launch_file, parse_assignments, resolve
from vla_ros.launching.scope import Scope

DATA = Path(__file__).parents[1] / "data" / "launch"


@pytest.fixture
def write(tmp_path):
    def write(body, name="top.launch.xml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<launch>{body}</launch>")
        return path

    return write


@pytest.fixture
def args_of(write):
    """The command line words of the first node of a launch file with this body."""

    def args_of(body, given=None, environ=None):
        return resolve(write(body), given or {}, environ or {}).nodes[0].arguments

    return args_of


def node(attributes="", children=""):
    return f'<node pkg="p" exec="e" {attributes}>{children}</node>'


# Substitutions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain $ (text)", "plain $ (text)"),
        ("a$(var x)b", "a1b"),
        ("$(var $(var name))", "1"),
        (r"\$(var x)", "$(var x)"),
        ("$(env UNSET 'a b')/$(var x)", "a b/1"),
        ('$(env UNSET "")', ""),
        ("$(env UNSET 'a $(var x)')", "a 1"),
        ("$(env UNSET $(var x)$(var x))", "11"),
        ("$(env SET never)", "value"),
        ("$(var unset fallback)", "fallback"),
        ("it's $(var x)", "it's 1"),
    ],
)
def test_substitution_yields(text, expected):
    assert Scope({"x": "1", "name": "x"}, {"SET": "value"}).text(text, "here") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$(eval 1)", r"unknown substitution \$\(eval\).*known: dirname, env, find-pkg-share, var"),
        ("$(vra x)", "did you mean 'var'"),
        ("$(var y)", "no argument or variable 'y'.*known: x"),
        ("$(env UNSET)", "environment variable UNSET isn't set"),
        ("$(var x", "isn't closed"),
        ("$(var  x)", "an empty argument"),
        ("$(var x )", "an empty argument"),
        ("$()", "without a name"),
        ("$(env A 'b)", "closing quote"),
        ("$(env A b c)", "has 3 arguments, needs 1 or 2"),
        ("$(dirname x)", "has 1 arguments, needs 0"),
        ("$(find-pkg-share no_such_package)", "ROS package 'no_such_package' is missing"),
    ],
)
def test_bad_substitution_is_named_with_its_place(text, problem):
    with pytest.raises(VlaRosError, match=problem) as caught:
        Scope({"x": "1"}, {}).text(text, "file:7")
    assert "file:7" in str(caught.value)


@given(st.text().filter(lambda text: "$(" not in text and "\\" not in text))
def test_text_without_substitution_is_kept(text):
    assert "".join(templates.parse(text, "here")) == text


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.text(), min_size=1), st.data())
def test_variables_are_taken_literally_and_joined_in_order(variables, data):
    names = data.draw(st.lists(st.sampled_from(sorted(variables)), max_size=5))
    text = "-".join(f"$(var {name})" for name in names)
    assert Scope(variables, {}).text(text, "here") == "-".join(variables[name] for name in names)


# Types of parameters


@pytest.mark.parametrize(
    ("text", "type_name", "expected"),
    [
        ("5", None, 5),
        ("5.0", None, 5.0),
        ("true", None, True),
        ("off", None, False),
        ("5 m", None, "5 m"),
        ("'5'", None, "5"),
        ("", None, ""),
        ("1e3", None, "1e3"),
        ("$(var five)", None, 5),
        ("$(var five)", "str", "5"),
        ("$(var five)", "float", 5.0),
        ("[1, 2]", None, [1, 2]),
        ("[1, $(var five)]", None, [1, 5]),
        ("[a, $(var five)x]", None, ["a", "5x"]),
        ("['1', $(var five)]", "list_of_str", ["1", "5"]),
        ("$(var list)", None, [0.5, 1.5]),
        ("$(var empty)", None, ""),
    ],
)
def test_parameter_value_has_the_type_of_ros(text, type_name, expected):
    scope = Scope({"five": "5", "list": "[0.5, 1.5]", "empty": ""}, {})
    value = typed_value(text, type_name, lambda template: scope.substitute(template, "here"), "here")
    assert repr(value) == repr(expected)


@pytest.mark.parametrize(
    ("text", "type_name", "problem"),
    [
        ("[1, 2.0]", None, "one kind of scalar"),
        ("[]", None, "one kind of scalar"),
        ("[[1], [2]]", None, "one kind of scalar"),
        ("{a: 1}", None, "a dict, which no ROS parameter can be"),
        ("~", None, "is nothing"),
        ("2020-01-01", None, "a date"),
        ("five", "int", "isn't of type int"),
        ("1", "bool", "isn't of type bool; write true or false"),
        ("", "float", "isn't of type float"),
        ("[1]", "list_of_float", "isn't a list_of_float"),
        ("3", "list_of_int", "isn't a list"),
        ("3", "integer", "unknown type 'integer'.*did you mean 'int'"),
    ],
)
def test_value_that_ros_has_no_type_for_is_refused(text, type_name, problem):
    with pytest.raises(ConfigError, match=problem):
        typed_value(text, type_name, lambda _: "", "here")


@given(st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(codec="ascii"))))
def test_written_parameter_file_reads_back_the_same_value(value):
    action = NodeAction("p", "e", "here", parameters=(Parameter("x", value),))
    (text,) = parameter_steps(action)
    assert repr(yaml.safe_load(text)) == repr({"/**": {"ros__parameters": {"x": value}}})


# Elements, conditions, scopes


@pytest.mark.parametrize(
    ("word", "is_there"), [("true", 1), ("1", 1), (" True ", 1), ("false", 0), ("0", 0), ("FALSE", 0)]
)
def test_condition_words(word, is_there, write):
    body = '<arg name="on"/>' + node('name="a" if="$(var on)"') + node('name="b" unless="$(var on)"')
    (action,) = resolve(write(body), {"on": word}, {}).nodes
    assert action.name == ("a" if is_there else "b")


def test_condition_that_is_no_truth_value_is_refused(write):
    path = write('<arg name="on" default="yes"/>' + node('if="$(var on)"'))
    with pytest.raises(ConfigError, match=r"top.launch.xml:1: '\$\(var on\)' is 'yes', not a truth value"):
        resolve(path, {}, {})


def test_value_from_outside_wins_over_a_default_and_let_over_both(args_of):
    body = '<arg name="a" default="1"/><arg name="b" default="$(var a)2"/><let name="c" value="3"/>'
    assert args_of(body + node('args="$(var a) $(var b) $(var c)"')) == ("1", "12", "3")
    assert args_of(body + node('args="$(var a) $(var b) $(var c)"'), {"a": "9"}) == ("9", "92", "3")
    assert args_of('<arg name="a"/><let name="a" value="3"/>' + node('args="$(var a)"'), {"a": "9"}) == ("3",)


def test_include_leaks_its_variables_and_a_group_keeps_them(write, args_of):
    write('<arg name="x" default="inner"/><let name="y" value="set inside"/>', "inner.launch.xml")
    include = '<include file="$(dirname)/inner.launch.xml"><arg name="x" value="passed"/></include>'
    show = node('args="$(var x none) $(var y none)"')
    assert args_of(include + show) == ("passed", "set inside")
    assert args_of(f"<group>{include}</group>{show}") == ("none", "none")
    assert args_of(f'<group scoped="false">{include}</group>{show}') == ("passed", "set inside")


def test_included_file_needs_its_arguments_passed_as_in_ros(write):
    write('<arg name="x"/>', "inner.launch.xml")
    path = write('<arg name="x" default="set outside"/><include file="$(dirname)/inner.launch.xml"/>')
    with pytest.raises(ConfigError, match=r"argument 'x', declared at .*inner.launch.xml:1, has no value; add <arg"):
        resolve(path, {}, {})


def test_remap_for_all_nodes_comes_before_their_own_and_ends_with_its_group(write):
    inner = node('name="inner"', '<remap from="/tf" to="never"/>')
    group = f'<group>{node()}<set_remap from="/tf" to="tf"/>{inner}</group>{node()}'
    nodes = resolve(write(group), {}, {}).nodes
    assert [item.remaps for item in nodes] == [(), (("/tf", "tf"), ("/tf", "never")), ()]
    # As in ROS: in a group inside one that has remaps they are added to that one's, and stay.
    group = f'<group><set_remap from="a" to="b"/><group><set_remap from="c" to="d"/></group>{node()}</group>{node()}'
    nodes = resolve(write(group), {}, {}).nodes
    assert [item.remaps for item in nodes] == [(("a", "b"), ("c", "d")), ()]


def test_namespaces_are_pushed_within_a_group_and_absolute_ones_stand_alone(write):
    inner = node("name='a'") + node("namespace='c' name='b'") + node("namespace='/d' name='c'")
    group = f'<group><push_ros_namespace namespace="a"/><push-ros-namespace namespace="b"/>{inner}</group>'
    graph = resolve(write(group + node("name='last'")), {}, {})
    assert [item.namespace for item in graph.nodes] == ["/a/b", "/a/b/c", "/d", None]
    assert [item.full_name for item in graph.nodes] == ["/a/b/a", "/a/b/c/b", "/d/c", None]


def test_words_of_args_are_split_like_a_shell_and_substitutions_stay_whole(args_of):
    words = args_of("<let name='x' value='a b'/>" + node("args=\"--in 'two words' $(var x)/y  z\""))
    assert words == ("--in", "two words", "a b/y", "z")


def test_parameters_files_and_remaps_keep_their_order_on_the_command_line(write):
    write("", "p.yaml")
    params = '<param name="a" value="1"/><param from="$(dirname)/p.yaml"/><param name="a" value="2"/>'
    remaps = '<remap from="x" to="y"/><remap from="x" to="z"/>'
    path = write(node('name="n" namespace="ns" args="word"', params + remaps))
    (action,) = resolve(path, {}, {}).nodes
    first, file, last = parameter_steps(action)
    assert file == ParameterFile(path.parent / "p.yaml")
    assert yaml.safe_load(first) == {"/ns/n": {"ros__parameters": {"a": 1}}}
    assert yaml.safe_load(last) == {"/ns/n": {"ros__parameters": {"a": 2}}}
    assert (action.values, action.params_files) == ({"a": 2}, (path.parent / "p.yaml",))
    words = (
        "prog word --ros-args -r __node:=n -r __ns:=/ns --params-file 0 --params-file 1 --params-file 2 -r x:=y -r x:=z"
    )
    assert command_line(action, ["prog"], ["0", "1", "2"]) == words.split()


def test_required_is_marked_by_an_environment_variable(write):
    mark = '<env name="VLA_ROS_REQUIRED" value="$(var on)"/>'
    path = write(f'<arg name="on"/>{node("", mark)}')
    assert resolve(path, {"on": "true"}, {}).nodes[0].is_required
    assert not resolve(path, {"on": "0"}, {}).nodes[0].is_required
    with pytest.raises(ConfigError, match="a required node can't be respawned"):
        resolve(write(node('respawn="true"', mark.replace("$(var on)", "true"))), {}, {})


# Errors in files


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<nod/>", "unknown element <nod> in <launch>; did you mean 'node'"),
        ("<timer/>", r"unknown element <timer> in <launch>.*ros2 launch"),
        ("<executable cmd='x'/>", "unknown element <executable>.*start a node"),
        ("<group><timer/></group>", "unknown element <timer> in <group>"),
        ("<node pkg='p' exec='e' if='0'><parm/></node>", "unknown element <parm> in <node>; did you mean 'param'"),
        ("<node pkg='p' exec='e' nmae='x'/>", "unknown attribute 'nmae' of <node>; did you mean 'name'"),
        ("<node pkg='p' exec='e' on_exit='shutdown'/>", "unknown attribute 'on_exit'.*VLA_ROS_REQUIRED"),
        ("<node pkg='p' exec='e'><param from='f' allow_substs='1'/></node>", "unknown attribute 'allow_substs'"),
        ("<node pkg='p'/>", "<node> has no attribute 'exec'"),
        ("<node pkg='p' exec='e' if='1' unless='0'/>", "has both 'if' and 'unless'"),
        ("<node pkg='p' exec='e' name='1x'/>", "'1x' isn't a node name"),
        ("<node pkg='p' exec='e' namespace='a//b'/>", "'/a//b' isn't a namespace"),
        ("<node pkg='p' exec='e' output='file'/>", "output 'file'; choose from: screen, log, both"),
        ("<node pkg='p' exec='e' respawn_delay='-1'/>", "respawn_delay is '-1'"),
        ("<node pkg='p' exec='e' args='&quot;a'/>", "can't be split into words"),
        ("<node pkg='p' exec='e'><param name='x'/></node>", "<param> without name and value"),
        ("<node pkg='p' exec='e'><param from='/none.yaml'/></node>", "parameter file /none.yaml doesn't exist"),
        ("<let name='x' value='$(eval 1)' if='0'/>", r"unknown substitution \$\(eval\)"),
        ("<group scoped='maybe'/>", "'scoped' is 'maybe'"),
        ("<include file='/none.launch.xml'/>", "includes /none.launch.xml, which doesn't exist"),
        ("<include file='x.launch.xml'/>", r"isn't absolute; write \$\(dirname\)"),
        ("<arg name='x' default='c'><choice value='a'/><choice value='b'/></arg>", "'x' is 'c'; choose from: a, b"),
        ("<arg name='x'/>", "argument 'x', declared at .*, has no value; give x:=VALUE"),
        ("text", "text 'text' between elements"),
        ("<node", "isn't XML"),
    ],
)
def test_error_names_what_is_wrong_and_the_mend(body, problem, write):
    with pytest.raises(ConfigError, match=problem) as caught:
        resolve(write(body), {}, {})
    assert "\n" not in str(caught.value)


def test_error_names_file_and_line(write):
    path = write("\n\n<group>\n  <nod/>\n</group>")
    with pytest.raises(ConfigError, match=f"{path}:4: unknown element"):
        resolve(path, {}, {})


def test_file_that_is_no_launch_file_is_refused(tmp_path):
    path = tmp_path / "robot.launch.xml"
    path.write_text("<robot/>")
    with pytest.raises(ConfigError, match="outermost element is <robot>"):
        resolve(path, {}, {})
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><launch/>')
    with pytest.raises(ConfigError, match="DOCTYPE"):
        resolve(path, {}, {})


def test_circle_of_includes_is_refused_with_its_members(write):
    write('<include file="$(dirname)/top.launch.xml"/>', "b.launch.xml")
    path = write('<include file="$(dirname)/b.launch.xml"/>')
    with pytest.raises(ConfigError, match=r"top\.launch\.xml -> b.launch.xml -> top.launch.xml"):
        resolve(path, {}, {})


def test_python_launch_file_is_left_to_ros(write, tmp_path):
    (tmp_path / "driver.launch.py").touch()
    path = write('<arg name="real" default="true"/><include file="$(dirname)/driver.launch.py" if="$(var real)"/>')
    with pytest.raises(MissingDependencyError, match=r"ros2 launch is missing.*driver.launch.py.*top.launch.xml:1"):
        resolve(path, {}, {})
    assert resolve(path, {"real": "false"}, {}).nodes == ()


def test_dirname_that_ros_would_take_for_another_folder_is_refused(write):
    write("", "below/inner.launch.xml")
    path = write('<include file="$(dirname)/below/inner.launch.xml"/>' + node('args="$(dirname)"'))
    with pytest.raises(ConfigError, match=r"\$\(dirname\) in or after an <include> from another folder"):
        resolve(path, {}, {})


# Arguments on the command line


def test_unknown_launch_argument_is_refused_with_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"unknown launch argument 'robt'; did you mean 'robot'.*known: .*rate_hz"
    ):
        resolve(DATA / "cell.launch.xml", {"robt": "panda"}, {})


def test_misspelt_argument_is_named_rather_than_the_missing_value(write):
    path = write('<arg name="robot"/><include file="$(dirname)/hardware_$(var robot).launch.xml"/>')
    with pytest.raises(UnknownNameError, match="did you mean 'robot'"):
        resolve(path, {"robt": "panda"}, {})


def test_argument_of_an_include_can_be_given_and_is_unknown_where_not_included(tmp_path):
    environ = fake_prefix(tmp_path)
    graph = resolve(DATA / "cell.launch.xml", {"hardware": "mock", "delay_s": "0.2"}, environ)
    assert [item.values for item in graph.nodes if item.executable == "mock"] == [{"delay_s": 0.2}]
    with pytest.raises(UnknownNameError, match="'delay_s'"):
        resolve(DATA / "cell.launch.xml", {"hardware": "sim", "delay_s": "0.2"}, environ)


def test_survey_lists_arguments_of_includes_and_of_inactive_parts(write):
    write('<arg name="inner" default="$(var given)/x" description="what it is"/>', "inner.launch.xml")
    path = write(
        '<arg name="given"/><include file="$(dirname)/inner.launch.xml" if="false"/><arg name="last" default=""/>'
    )
    listed = declared_arguments(path, {}, {})
    assert [(item.name, item.default, item.description) for item in listed] == [
        ("given", None, ""),
        ("inner", "$(var given)/x", "what it is"),
        ("last", "", ""),
    ]


def test_assignments():
    assert parse_assignments(["a:=1", "b:=", "c:=x:=y", "a:=2"]) == {"a": "2", "b": "", "c": "x:=y"}
    for word in ("a=1", ":=1", "a"):
        with pytest.raises(ConfigError, match="isn't an assignment; write name:=value"):
            parse_assignments([word])


def test_bare_name_that_is_no_file_of_ours_is_refused():
    with pytest.raises(UnknownNameError, match="unknown launch file 'brinup'"):
        find_launch_file("brinup")
    with pytest.raises(ConfigError, match="no such file"):
        find_launch_file("no/such.launch.xml")


# Packages and environment


def fake_prefix(folder, *programs):
    (folder / "share/ament_index/resource_index/packages").mkdir(parents=True, exist_ok=True)
    (folder / "share/ament_index/resource_index/packages/fake_nodes").touch()
    (folder / "share/fake_nodes").mkdir(exist_ok=True)
    (folder / "share/fake_nodes/more.yaml").write_text((DATA / "more.yaml").read_text())
    (folder / "lib/fake_nodes").mkdir(parents=True, exist_ok=True)
    for program in programs:
        (folder / "lib/fake_nodes" / program).touch(mode=0o755)
    return {"AMENT_PREFIX_PATH": str(folder)}


def test_program_is_found_in_the_ament_prefix(tmp_path):
    environ = fake_prefix(tmp_path, "talker")
    assert find_program("fake_nodes", "talker", environ, "f:1").words == (str(tmp_path / "lib/fake_nodes/talker"),)
    assert find_share("fake_nodes", environ, "f:1") == tmp_path / "share/fake_nodes"
    with pytest.raises(ConfigError, match=r"f:1: no executable 'talkr' in .*did you mean 'talker'"):
        find_program("fake_nodes", "talkr", environ, "f:1")
    with pytest.raises(MissingDependencyError, match="ROS package 'no_nodes' is missing, needed for f:1"):
        find_program("no_nodes", "talker", environ, "f:1")


@pytest.mark.skipif(not (package_share() / "vla_ros").is_dir(), reason="needs a source checkout, not an installation")
def test_own_nodes_of_a_checkout_run_as_a_module():
    program = find_program("vla_ros", "motion", {}, "f:1")
    assert program == Program((sys.executable, "-m", "vla_ros.nodes", "motion"), package_share())
    with pytest.raises(ConfigError, match=r"no executable 'messages' in .*known: .*motion"):
        find_program("vla_ros", "messages", {}, "f:1")


ACTION = NodeAction("p", "e", "f:1", env=(("EXTRA", "1"),))


def test_environment_without_ros_has_defaults_that_the_user_can_override():
    child = node_environment(ACTION, Program(("e",)), {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"})
    assert child["AMENT_PREFIX_PATH"] == sys.prefix
    assert child["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"
    assert child["FASTDDS_BUILTIN_TRANSPORTS"] == "LARGE_DATA"
    assert child["EXTRA"] == "1"


def test_environment_of_a_sourced_ros_is_left_alone():
    child = node_environment(ACTION, Program(("e",)), {"AMENT_PREFIX_PATH": "/opt/ros/jazzy"})
    assert set(child) == {"AMENT_PREFIX_PATH", "EXTRA", "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("has_libraries", [True, False])
def test_mark_of_the_wheels_is_passed_only_with_the_library_path(has_libraries):
    environ = {"_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"} | ({"LD_LIBRARY_PATH": "/lib"} if has_libraries else {})
    child = node_environment(ACTION, Program(("e",)), environ)
    assert ("_ROS_WHEELS_BOOTSTRAP_COMPLETE" in child) == has_libraries


def test_checkout_comes_before_the_users_python_path():
    child = node_environment(ACTION, Program(("e",), Path("/ours")), {"PYTHONPATH": "/theirs"})
    assert child["PYTHONPATH"] == "/ours:/theirs"


def test_labels_are_unique():
    def action(name, namespace=None):
        return NodeAction("p", "e", "f:1", name=name, namespace=namespace)

    nodes = (
        action(None),
        action("a"),
        action("a", "/left"),
        action("a", "/right"),
        action("a", "/left"),
        action("b", "/x"),
    )
    assert LaunchGraph(Path("f"), (), nodes).labels() == ("e", "a", "left/a", "right/a", "left/a-2", "b")


# The command


def run_command(*words):
    parser = argparse.ArgumentParser()
    launch_command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["launch", *map(str, words)])
    return args.run(args)


def test_print_shows_the_graph_and_starts_nothing(write, capsys):
    path = write('<arg name="rate" default="50"/>' + node("name='n'", '<param name="rate" value="$(var rate)"/>'))
    assert run_command(path, "--print", "rate:=80") == 0
    out = capsys.readouterr().out
    assert "node n\n  program p/e\n" in out
    assert "parameter rate = 80" in out
    assert run_command(path, "rate:=80", "--print", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["arguments"] == {"rate": "80"}
    assert data["nodes"][0]["parameters"] == [{"name": "rate", "value": 80}]


def test_show_args_lists_defaults_descriptions_and_choices(capsys):
    assert run_command(DATA / "cell.launch.xml", "--show-args") == 0
    out = capsys.readouterr().out
    assert "robot  (default: 'panda')\n    which arm; sets joints and limits\n    one of: panda, ur5e" in out
    assert "robot_ip  (required)\n    address of the arm" in out
    assert run_command(DATA / "cell.launch.xml", "--show-args", "--json") == 0
    assert json.loads(capsys.readouterr().out)["arguments"][0]["choices"] == ["panda", "ur5e"]


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        run_command("--help")
    assert "vla-ros launch bringup robot:=panda" in capsys.readouterr().out


def test_missing_ros_is_told_with_its_mend_and_a_fault_of_ours_is_not_taken_for_it() -> None:
    told = r"rclpy is missing, needed for this; mend: .*vla_ros\[ros\]"
    with pytest.raises(MissingDependencyError, match=told), ros_for("this"):
        raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")
    with pytest.raises(ModuleNotFoundError, match=r"vla_ros\.nodes\.nowhere"), ros_for("this"):
        importlib.import_module("vla_ros.nodes.nowhere")
