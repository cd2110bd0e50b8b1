"""What a network is: the graph, its operators, its text form and its verifier."""

from .errors import BudgetError, Error, InputError, LawError, PassError, SlowerError, Unsupported, VerifyError
from .graph import Array, Attr, Graph, Node, Source, Sym, Value, dtype_of, numpy_dtype, prune_dead
from .infer import infer_node
from .ops import BINARY, COMPARE, ELEMENTWISE, END, OPS, REDUCE, RESHAPES, UNARY
from .text import parse_graph, print_graph, print_node, reinfer
from .verify import verify

__all__ = [
    "BINARY", "COMPARE", "ELEMENTWISE", "END", "OPS", "REDUCE", "RESHAPES", "UNARY",
    "Array", "Attr", "BudgetError", "Error", "Graph", "InputError", "LawError", "Node", "PassError", "SlowerError",
    "Source", "Sym", "Unsupported", "Value", "VerifyError",
    "dtype_of", "infer_node", "numpy_dtype", "parse_graph", "print_graph", "print_node", "prune_dead", "reinfer",
    "verify",
]  # fmt: skip
