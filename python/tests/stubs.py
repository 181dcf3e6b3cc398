"""Gives the stubs the documentation that the extension module has, for editors to show.

`cargo xtask gen` prints them so: `python stubs.py <the built library> <_native.pyi>`.
"""

import ast
import importlib.machinery
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType


def documented(stubs: str, module: ModuleType) -> str:
    """Put the module's documentation in the place of what the stubs say."""
    lines = stubs.splitlines(keepends=True)
    # From the last to the first, so that the places before stay what they are.
    for node, thing in reversed(_places(ast.parse(stubs), module)):
        text = inspect.getdoc(thing)
        first = node.body[0]
        assert isinstance(first, ast.Expr)
        assert first.end_lineno is not None
        if text is None or not isinstance(first.value, ast.Constant):
            continue
        margin = " " * (node.col_offset + 4)
        says = f'"""{text}"""'.replace("\n", f"\n{margin}").replace(f"\n{margin}\n", "\n\n")
        head = lines[first.lineno - 1][: first.col_offset].rstrip()
        before = [head + "\n"] if head else []
        lines[first.lineno - 1 : first.end_lineno] = [*before, f"{margin}{says}\n"]
    return "".join(lines)


def _places(tree: ast.AST, owner: object) -> list[tuple[ast.ClassDef | ast.FunctionDef, object]]:
    """Find what has a name of its own, in the order of the text, and what it names."""
    places: list[tuple[ast.ClassDef | ast.FunctionDef, object]] = []
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            thing = getattr(owner, node.name)
            places += [(node, thing), *_places(node, thing)]
    return places


def _loaded(library: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("dodo_ingestion._native", library)
    spec = importlib.util.spec_from_file_location(loader.name, library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


if __name__ == "__main__":
    library, stubs = sys.argv[1:]
    sys.stdout.write(documented(Path(stubs).read_text("utf-8"), _loaded(library)))
