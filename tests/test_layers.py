"""The layers of the package: a module imports only from layers below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "llm_manager"

LAYERS = [
    {"redaction", "_threads", "clock", "image_headers"},
    {"errors"},
    {"checks"},
    {"schemas"},
    {"messages"},
    {"status"},
    {"events"},
    {"subscription"},
    {"emitter"},
    {
        "config",
        "interrupt",
        "lease",
        "listening",
        "machine",
        "shared",
        "sleepwatch",
        "_blocking",
        "tokens",
        "prices",
        "concurrency",
    },
    {"stream", "wire", "policy", "catalog", "probing", "supervisor", "settings"},
    {"transport"},
    {"connection", "asking", "reconfiguring"},
    {"provider"},
    {"providers"},
    {"registry"},
    {"manager"},
    {"discovery", "tools", "media", "portability", "startup"},
    {"observe", "counting", "reloading"},
    {"composites", "factory"},
    {"cli", "testing"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
USES_ONLY_THE_PUBLIC_API = {"cli"}


def _imports_at_run_time(tree: ast.AST):
    """Import nodes outside ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from _imports_at_run_time(node)


def _used_by(path: Path):
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in _imports_at_run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            module = [*base, *(node.module.split(".") if node.module else [])]
            yield from [module[0]] if module else [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llm_manager."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_layers_below_its_own(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in RANK, f"{own} has no layer"
    for used in _used_by(path):
        assert used == own or RANK[used] < RANK[own], f"{own} imports {used}"


def test_the_layer_test_sees_a_forbidden_import(tmp_path: Path) -> None:
    tree = ast.parse("def f():\n    from ..manager import LLMProviderManager")
    assert len(list(_imports_at_run_time(tree))) == 1


def test_vendor_libraries_are_imported_only_where_they_belong() -> None:
    homes = {"httpx2": {"transport"}, "tenacity": {"policy"}, "pyee": {"emitter"}, "rich": {"cli"}}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in _imports_at_run_time(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if not node.level
                else []
            )
            for name in names:
                allowed = homes.get(name.split(".")[0])
                assert allowed is None or own in allowed, f"{path} imports {name}"
