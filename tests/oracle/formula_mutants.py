"""Formulas wrong in one place: each operator turned, sign dropped, number changed, one at a time."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

Place = ast.BinOp | ast.UnaryOp | ast.Constant

TURNED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
}
# Limits of what is refused and of how far a sum goes.
LIMITS: Final = frozenset(
    {"_TOLERANCE", "_TAIL", "_SHORTEST, _LONGEST", "_PADDING", "_NEGLIGIBLE", "_MOST_NODES", "_MOST_QUBITS"}
)
# Parts that hold types, or, in a loop, how long a sum goes on.
UNREAD: Final[dict[type[ast.AST], tuple[str, ...]]] = {
    ast.FunctionDef: ("returns", "decorator_list"),
    ast.arg: ("annotation",),
    ast.AnnAssign: ("annotation",),
    ast.While: ("test",),
}


class Mutant(NamedTuple):
    """A module with one fault.

    Args: line, change: where and what; values: the faulty module's functions and constants by name.
    """

    line: int
    change: str
    values: dict[str, Any]


def mutants(module: ModuleType) -> Iterator[Mutant]:
    """Every mutant of a module's formulas."""
    tree = ast.parse(inspect.getsource(module))
    for number, _ in enumerate(list(places(tree))):
        faulty = copy.deepcopy(tree)
        node = list(places(faulty))[number]
        before = ast.unparse(node)
        break_one(node)
        namespace: dict[str, Any] = {"__name__": module.__name__}
        exec(compile(ast.fix_missing_locations(faulty), "<mutant>", "exec"), namespace)
        # A series that a fault keeps from converging shall not go on for long.
        namespace |= {"_LONGEST": 1 << 12} if "_LONGEST" in namespace else {}
        values = {key: value for key, value in namespace.items() if is_own(key, value, namespace)}
        yield Mutant(node.lineno, f"{before} -> {ast.unparse(node)}", values)


def is_own(name: str, value: object, namespace: dict[str, Any]) -> bool:
    """Whether the mutant itself defines it: a constant or a function that is not imported."""
    inner = inspect.unwrap(value) if callable(value) else value
    return name.isupper() or (isinstance(inner, FunctionType) and inner.__globals__ is namespace)


def places(tree: ast.AST) -> Iterator[Place]:
    """Where a formula can be wrong; refusals, texts and types are none."""
    if is_refusal(tree):
        return
    if isinstance(tree, Place) and is_formula(tree):
        yield tree
    for field, value in ast.iter_fields(tree):
        if field not in UNREAD.get(type(tree), ()):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from places(child)


def is_formula(node: Place) -> bool:
    """Whether this is something that `break_one` can make wrong."""
    if isinstance(node, ast.BinOp):
        return type(node.op) in TURNED
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub)
    return type(node.value) in (int, float)


def is_refusal(tree: ast.AST) -> bool:
    """Whether a part says what is refused, or how far a sum goes."""
    if isinstance(tree, ast.If):
        return all(isinstance(step, ast.Raise) for step in tree.body)
    if isinstance(tree, ast.Expr):
        return ast.unparse(tree).startswith("ranges.")
    if isinstance(tree, ast.Assign | ast.AnnAssign):
        target = tree.targets[0] if isinstance(tree, ast.Assign) else tree.target
        return ast.unparse(target).strip("()") in LIMITS
    return isinstance(tree, ast.Raise | ast.JoinedStr)


def break_one(node: Place) -> None:
    """Put the fault in."""
    if isinstance(node, ast.BinOp):
        node.op = TURNED[type(node.op)]()
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
    else:
        assert isinstance(node.value, int | float)
        node.value = node.value + 1 if isinstance(node.value, int) else node.value + 0.125
