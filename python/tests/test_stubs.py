"""The stubs of the extension module: its signatures, and its documentation for editors.

`python tests/test_stubs.py` writes the documentation into them anew.
"""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import dodo_ingestion
from dodo_ingestion import _native

STUBS = Path(dodo_ingestion.__file__).with_name("_native.pyi")


def documented(stubs: str) -> ast.Module:
    """Give the stubs with the module's own documentation."""
    tree = ast.parse(stubs)
    places: list[tuple[ast.AST, object]] = [(node, _native) for node in tree.body]
    for node, owner in places:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        thing = getattr(owner, node.name)
        text = inspect.getdoc(thing)
        body = [each for each in node.body if not _is_text(each)]
        says: list[ast.stmt] = [ast.Expr(ast.Constant(text))] if text else []
        node.body = says + [each for each in body if not (says and _is_ellipsis(each))]
        if isinstance(node, ast.ClassDef):
            places += [(each, thing) for each in node.body]
    return ast.fix_missing_locations(tree)


def _is_text(node: ast.stmt) -> bool:
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(ast.literal_eval(ast.unparse(node)), str)


def _is_ellipsis(node: ast.stmt) -> bool:
    return ast.unparse(node) == "..."


def test_the_stubs_say_what_the_module_is() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "dodo_ingestion._native"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_stubs_say_what_the_module_says() -> None:
    stubs = STUBS.read_text("utf-8")
    again = "python tests/test_stubs.py writes it anew"
    # Editors show indented text as it is: what counts is the text without its indentation.
    assert texts(ast.parse(stubs)) == texts(documented(stubs)), again


def texts(tree: ast.Module) -> dict[str, str | None]:
    return {
        f"{node.name}:{node.lineno}": ast.get_docstring(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


if __name__ == "__main__":
    STUBS.write_text(ast.unparse(documented(STUBS.read_text("utf-8"))) + "\n", "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", STUBS], check=True)
