"""What stands in an ONNX file, by the names that its nodes have there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

FUSED = "_nchwc"
"""How ONNX Runtime ends the name of a node that it has laid out anew: before it stands the result, not the node."""


def convolutions(path: Path) -> list[str]:
    """Return the names of an ONNX file's convolutions in the order of the network: the classifier is the last."""
    return [node.name for node in _graph(path).node if node.op_type == "Conv"]


def behind_the_logits(path: Path) -> list[str]:
    """Return the names of what stands between the classifier and the labels."""
    graph = _graph(path)
    makers = _makers(graph)
    names, node = [], makers[graph.output[0].name]
    while node.op_type in ("Cast", "ArgMax", "Resize"):
        names.append(node.name)
        node = makers[node.input[0]]
    return names


def names_in_file(path: Path) -> Callable[[str, str], str]:
    """Return what takes ONNX Runtime's name of a node, and its kind, to the name in the file, where it can be told.

    A convolution that was fused with what follows is called after the result of the last of them.
    """
    makers = _makers(_graph(path))

    def name_in_file(name: str, kind: str) -> str:
        node = makers.get(name.removesuffix(FUSED)) if name.endswith(FUSED) else None
        while node is not None and node.op_type != kind:
            node = next((makers[given] for given in node.input if given in makers), None)
        return node.name if node is not None else name

    return name_in_file


def _graph(path: Path) -> Any:
    import onnx

    return onnx.load(path, load_external_data=False).graph


def _makers(graph: Any) -> dict[str, Any]:
    """For each result in a graph, the node that makes it."""
    return {name: node for node in graph.node for name in node.output}
