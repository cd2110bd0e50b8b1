"""What is known of an operator that the IR has no name for: the attributes of the file's own node."""

from __future__ import annotations

import base64

from .graph import Attr, Node


def onnx_attributes(node: Node) -> dict[str, Attr]:
    """Attributes of an opaque ONNX node by name, subgraphs left out; none for nodes of other formats."""
    if node.attrs["kind"] != "onnx" or not node.attrs["payload"]:
        return {}
    from onnx import AttributeProto, NodeProto, helper

    proto = NodeProto.FromString(base64.b64decode(node.attrs["payload"]))
    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    return {a.name: helper.get_attribute_value(a) for a in proto.attribute if a.type not in graphs}


def with_onnx_attributes(node: Node, **numbers: int) -> Node:
    """The same opaque ONNX node with these integer attributes."""
    from onnx import NodeProto, helper

    proto = NodeProto.FromString(base64.b64decode(node.attrs["payload"]))
    for name, value in numbers.items():
        for attribute in [a for a in proto.attribute if a.name == name]:
            proto.attribute.remove(attribute)
        proto.attribute.append(helper.make_attribute(name, value))
    return node.with_attrs(payload=base64.b64encode(proto.SerializeToString()).decode())
