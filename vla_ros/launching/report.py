"""A resolved launch file as text for people and as plain data for machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vla_ros.launching.graph import LaunchArgument, LaunchGraph, NodeAction, Parameter


def graph_text(graph: LaunchGraph) -> str:
    """The graph, one fact a line."""
    lines = [f"file {graph.file}"]
    if graph.arguments:
        lines += ["arguments", *(f"  {argument.name}:={argument.value}" for argument in graph.arguments)]
    for label, node in zip(graph.labels(), graph.nodes, strict=True):
        lines += [f"node {label}", *(f"  {line}" for line in _node_lines(node))]
    return "\n".join(lines)


def _node_lines(node: NodeAction) -> list[str]:
    marks = [word for word, is_on in (("required", node.is_required), ("respawned", node.is_respawned)) if is_on]
    lines = [f"program {node.package}/{node.executable}" + "".join(f", {mark}" for mark in marks)]
    lines += [f"name {node.name}"] if node.name else []
    lines += [f"namespace {node.namespace}"] if node.namespace else []
    lines += [f"arguments {' '.join(node.arguments)}"] if node.arguments else []
    for item in node.parameters:
        if isinstance(item, Parameter):
            lines.append(f"parameter {item.name} = {item.value!r}")
        else:
            lines.append(f"parameters from {item.path}")
    lines += [f"remap {source} -> {target}" for source, target in node.remaps]
    lines += [f"env {name}={value}" for name, value in node.env]
    return [*lines, f"output {node.output}", f"from {node.where}"]


def graph_data(graph: LaunchGraph) -> dict[str, Any]:
    """The graph as plain data."""
    nodes = [
        {
            "label": label,
            "package": node.package,
            "executable": node.executable,
            "name": node.name,
            "namespace": node.namespace,
            "parameters": [
                {"name": item.name, "value": item.value} if isinstance(item, Parameter) else {"from": str(item.path)}
                for item in node.parameters
            ],
            "params_files": [str(path) for path in node.params_files],
            "remaps": [list(remap) for remap in node.remaps],
            "env": dict(node.env),
            "arguments": list(node.arguments),
            "output": node.output,
            "respawn": node.is_respawned,
            "required": node.is_required,
            "where": node.where,
        }
        for label, node in zip(graph.labels(), graph.nodes, strict=True)
    ]
    return {"file": str(graph.file), "arguments": {item.name: item.value for item in graph.arguments}, "nodes": nodes}


def arguments_text(arguments: Iterable[LaunchArgument]) -> str:
    """The declared arguments, for `--show-args`."""
    lines = []
    for argument in arguments:
        default = "(required)" if argument.default is None else f"(default: {argument.default!r})"
        lines.append(f"{argument.name}  {default}")
        lines += [f"    {argument.description}"] if argument.description else []
        lines += [f"    one of: {', '.join(argument.choices)}"] if argument.choices else []
    return "\n".join(lines) or "no arguments"


def arguments_data(arguments: Iterable[LaunchArgument]) -> dict[str, Any]:
    """The declared arguments as plain data."""
    return {
        "arguments": [
            {
                "name": item.name,
                "default": item.default,
                "description": item.description,
                "choices": list(item.choices),
                "where": item.where,
            }
            for item in arguments
        ]
    }
