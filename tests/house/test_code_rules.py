"""House rules that a linter does not know: budgets, units in names, docstrings, codes, secrets, URNs.

Each rule reads all files and lists every breach as `file:line what, what to do`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "src" / "multiplane"

MAX_FUNCTION_LINES: Final = 60
MAX_FILE_LINES: Final = 500

UNITS: Final = frozenset(
    {"ps", "ns", "us", "ms", "s", "min", "h", "day"}
    | {"km", "m", "mm", "um", "nm", "db", "dbm", "hz", "khz", "mhz", "ghz", "thz"}
    | {"bit", "byte", "kbit", "mbit", "k", "w", "mw", "uw", "nw", "pw", "rad", "deg"}
)
PURE_NUMBERS: Final = frozenset(
    {"probability", "probabilities", "fidelity", "qber", "visibility", "efficiency", "entropy", "epsilon"}
    | {"rate", "rates", "ratio", "mu", "nu", "share", "fraction", "factor", "weight", "weights", "gain"}
    | {"value", "error", "confidence", "quantile", "utilisation", "overhead", "level"}
)
PURE_WHOLE_NAMES: Final = frozenset(
    {"x", "y", "z", "shift", "p", "q", "a", "b", "low", "high", "least", "most", "tolerance", "group_mean"}
)

URI_MODULES: Final = ("urllib", "yarl", "rfc3986", "rfc3987", "furl", "hyperlink")
URI_ALLOWED: Final = {
    "sdk/client.py": "percent-encodes a path segment of an HTTP URL; URNs go through it as opaque text",
    "sdk/wire.py": "sends a path that its callers have percent-encoded as it is",
    "sdk/conformance/exchange.py": "percent-encodes a path segment of an HTTP URL, as sdk/client.py does",
    "runtime/http_routing.py": "decodes path segments of an HTTP request; URNs come out of it as opaque text",
}
BYTES_ALLOWED: Final = {
    "kernel/ports.py:Put": "a row as the store takes it: what is secret in it is sealed",
    "service/resource/inbound.py:_Row": "its secret is sealed",
    "service/resource/inbound.py:_BlockRow": "sealed",
    "service/resource/outbound.py:_Row": "its secret is sealed",
    "fabric/resource.py:HopMessage": "locked under pad and tag, as it goes over the wire",
    "fabric/resource.py:Send": "an encoded HopMessage",
}
# Bases that declare no method of their own; any other base from outside the package names its methods itself.
PLAIN_BASES: Final = frozenset(
    {"Struct", "Protocol", "ABC", "Generic", "Enum", "IntEnum", "StrEnum", "Exception", "NamedTuple"}
)
ERROR_KINDS: Final = ("Refused", "Busy", "Faulty", "Unknown")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A parsed file: `name` is its path below the checkout, `room_path` its path below src/multiplane."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def room_path(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()


@cache
def parsed(path: Path) -> Source:
    """A file, read and parsed once for all rules."""
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text, str(path)))


def python_files(*folders: str) -> list[Source]:
    """Every Python file below the folders of the checkout."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parsed(path) for path in paths if "__pycache__" not in path.parts]


def package_files() -> list[Source]:
    """The files of the package itself."""
    return python_files("src/multiplane")


def report(breaches: list[str]) -> None:
    """Fail with one line for each breach."""
    assert not breaches, "\n" + "\n".join(breaches)


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def body_lines(function: FunctionNode) -> int:
    """Lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    end = function.end_lineno or function.lineno
    return (
        end - function.lineno + 1 - ((docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0)
    )


def base_names(node: ast.ClassDef) -> list[str]:
    """Names of the bases, without the modules before them and the parameters after them."""
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [ast.unparse(base).rsplit(".", 1)[-1] for base in plain]


@cache
def classes() -> tuple[tuple[Source, ast.ClassDef], ...]:
    """Every class of the package."""
    return tuple(
        (source, node)
        for source in package_files()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    )


@cache
def class_names() -> dict[str, ast.ClassDef]:
    """The classes of the package by name."""
    return {node.name: node for _, node in classes()}


def descendants(*roots: str) -> set[str]:
    """Names of the roots and of all classes of the package derived from them."""
    found, before = set(roots), -1
    while len(found) != before:
        before = len(found)
        found |= {node.name for _, node in classes() if found & set(base_names(node))}
    return found


def lineage(node: ast.ClassDef) -> tuple[list[ast.ClassDef], bool]:
    """All bases of a class within the package, and whether one from outside prescribes methods."""
    by_name = class_names()
    found: list[ast.ClassDef] = []
    foreign = False
    waiting = base_names(node)
    while waiting:
        name = waiting.pop()
        if name in by_name and by_name[name] not in found and by_name[name] is not node:
            found.append(by_name[name])
            waiting += base_names(by_name[name])
        elif name not in by_name and name not in PLAIN_BASES:
            foreign = True
    return found, foreign


def test_functions_and_files_keep_to_their_budgets() -> None:
    breaches = []
    for source in python_files("src", "tests", "bench"):
        lines = source.text.count("\n")
        if lines > MAX_FILE_LINES:
            breaches.append(f"{source.name}:1 has {lines} lines, at most {MAX_FILE_LINES}: split it by job")
        breaches += [
            f"{source.name}:{function.lineno} {function.name} has {body_lines(function)} lines without its"
            f" docstring, at most {MAX_FUNCTION_LINES}: give its parts names"
            for function in functions(source.tree)
            if body_lines(function) > MAX_FUNCTION_LINES
        ]
    report(breaches)


def test_no_module_is_a_drawer() -> None:
    drawer = re.compile(r"(manager|helper|util)s?$|^(misc|common)$")
    report(
        [
            f"{source.name}:1 is named after nothing it does: name the job"
            for source in python_files("src", "tests", "bench")
            if drawer.search(source.path.stem) or drawer.search(source.path.parent.name)
        ]
    )


def test_test_files_have_names_of_their_own() -> None:
    seen: dict[str, str] = {}
    breaches = []
    for source in python_files("tests"):
        if source.path.name.startswith("test_"):
            if source.path.name in seen:
                breaches.append(f"{source.name}:1 has the name of {seen[source.path.name]}: rename one")
            seen[source.path.name] = source.name
    report(breaches)


def is_float(annotation: ast.expr | None) -> bool:
    """Whether an annotation is a float, alone or as an alternative (`float | None`)."""
    if isinstance(annotation, ast.BinOp):
        return is_float(annotation.left) or is_float(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id == "float"


def says_its_unit(name: str) -> bool:
    """Whether a name ends in a unit (`delay_ns`, `rate_bit_per_s`) or is a pure number by its last word."""
    words = name.strip("_").lower().split("_")
    if "per" in words[:-1]:
        return True
    return (words[-1] in UNITS and len(words) > 1) or words[-1] in PURE_NUMBERS or name in PURE_WHOLE_NAMES


def floats(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, what it is, name) of every float parameter and class field."""
    adopted = {
        method
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and lineage(node)[1]
        for method in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode) and node not in adopted:
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if is_float(argument.annotation):
                    yield argument.lineno, f"parameter of {node.name}", argument.arg
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and is_float(field.annotation)
                ):
                    yield field.lineno, f"field of {node.name}", field.target.id


def test_floats_carry_their_unit() -> None:
    report(
        [
            f"{source.name}:{line} float {what} `{name}` does not say its unit: end it in one"
            " (`_km`, `_db`, `_s`, `_bit_per_s`) or, if it is a pure number, in a word of PURE_NUMBERS"
            for source in package_files()
            for line, what, name in floats(source.tree)
            if not says_its_unit(name)
        ]
    )


def is_stub(function: FunctionNode) -> bool:
    """Whether the body is only `...`."""
    statement = function.body[-1]
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is ...
    )


def protocol_methods() -> set[str]:
    """Names of methods that a Protocol of the package declares: they are documented there, once."""
    return {
        method.name
        for _, node in classes()
        if "Protocol" in base_names(node)
        for method in node.body
        if isinstance(method, FunctionNode)
    }


def is_overload_or_setter(function: FunctionNode) -> bool:
    """Whether the documentation stands at another function of the same name."""
    return any(
        ast.unparse(mark).rsplit(".", 1)[-1] in ("overload", "setter") for mark in function.decorator_list
    )


def undocumented(source: Source, declared: set[str]) -> Iterator[str]:
    """Breaches of `public things say what they are` in one file."""
    if not ast.get_docstring(source.tree):
        yield f"{source.name}:1 the module has no docstring"
    for node in source.tree.body:
        if (
            isinstance(node, FunctionNode | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ):
            stub = isinstance(node, FunctionNode) and (is_stub(node) or is_overload_or_setter(node))
            protocol = isinstance(node, ast.ClassDef) and "Protocol" in base_names(node)
            if not stub and not protocol:
                yield f"{source.name}:{node.lineno} {node.name} has no docstring"
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases, foreign = lineage(node)
            inherited = {
                method.name for base in bases for method in base.body if isinstance(method, FunctionNode)
            }
            for method in node.body if not foreign else ():
                if (
                    isinstance(method, FunctionNode)
                    and not method.name.startswith("_")
                    and method.name not in declared | inherited
                    and not is_overload_or_setter(method)
                    and not ast.get_docstring(method)
                ):
                    yield f"{source.name}:{method.lineno} {node.name}.{method.name} has no docstring"


def test_public_things_say_what_they_are() -> None:
    declared = protocol_methods()
    report([breach for source in package_files() for breach in undocumented(source, declared)])


def test_physics_says_when_it_holds_and_who_says_so() -> None:
    report(
        [
            f"{source.name}:{node.lineno} {node.name} lacks {wanted!r} in its docstring"
            for source in python_files("src/multiplane/physics")
            for node in source.tree.body
            if isinstance(node, FunctionNode) and not node.name.startswith("_")
            for wanted in ("Holds for", "Source")
            if wanted not in (ast.get_docstring(node) or "")
        ]
    )


def raised_codes() -> Iterator[tuple[str, str, str]]:
    """(place, kind, code) of every error built with a literal code, and of every code a door promises."""
    for source in package_files():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rsplit(".", 1)[-1] in ERROR_KINDS:
                kind = ast.unparse(node.func).rsplit(".", 1)[-1]
                if (
                    node.args
                    and isinstance(node.args[0], ast.Constant)
                    and isinstance(node.args[0].value, str)
                ):
                    yield f"{source.name}:{node.lineno}", kind, node.args[0].value
            if isinstance(node, FunctionNode):
                for kind, codes in re.findall(
                    r"(Refused|Busy|Faulty|Unknown)\(([^)]*)\)", ast.get_docstring(node) or ""
                ):
                    for code in re.findall(r"`([^`]+)`", codes):
                        yield f"{source.name}:{node.lineno}", kind, code


def test_error_codes_are_dotted_and_mean_one_kind() -> None:
    breaches = []
    kinds: dict[str, tuple[str, str]] = {}
    for place, kind, code in raised_codes():
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+", code):
            breaches.append(f"{place} code {code!r}: expected dotted lower-case (`key.not_found`)")
        first_place, first_kind = kinds.setdefault(code, (place, kind))
        if kind != first_kind:
            breaches.append(
                f"{place} {code!r} is {kind} here and {first_kind} at {first_place}: two meanings, two codes"
            )
    report(breaches)


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def test_no_generic_uri_function_touches_a_urn() -> None:
    """Generic parsers drop the q-component, fold case in the wrong places and merge different pairings."""
    report(
        [
            f"{source.name}:{line} imports {module}: a URN goes through kernel.urn only; where HTTP itself"
            " needs it, name the file and the reason in URI_ALLOWED"
            for source in package_files()
            for line, module in imported_modules(source.tree)
            if module.split(".")[0] in URI_MODULES and source.room_path not in URI_ALLOWED
        ]
    )


def test_messages_with_bytes_are_secrets() -> None:
    structs, secrets = descendants("Struct", "Noun"), descendants("Secret")
    report(
        [
            f"{source.name}:{field.lineno} {node.name} has a bytes field and a repr that shows it:"
            " derive it from kernel.nouns.Secret"
            for source, node in classes()
            if structs & set(base_names(node)) and node.name not in secrets
            if f"{source.room_path}:{node.name}" not in BYTES_ALLOWED
            for field in node.body
            if isinstance(field, ast.AnnAssign)
            and re.search(r"\b(bytes|bytearray)\b", ast.unparse(field.annotation))
        ]
    )
