"""The layers of the packages: rooms one above the other, and every import goes down."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = (
    ("cityscapes.compiled", "cityscapes.errors", "cityscapes.freed_memory", "cityscapes.workspace"),
    ("cityscapes.files", "cityscapes.findings", "cityscapes.labels", "cityscapes.layout", "cityscapes.parallel"),
    ("cityscapes.audit_rules", "cityscapes.ids"),
    ("cityscapes.dataset", "cityscapes.demo", "cityscapes.label_files", "cityscapes.masks"),
    ("cityscapes.generate_gt", "cityscapes.scores"),
    ("cityscapes.audit_frames", "cityscapes.evaluate", "cityscapes.submissions"),
    ("cityscapes.audit", "cityscapes.submission"),
    ("dlv3p.parameters",),
    ("dlv3p.runtime",),
    ("dlv3p.models", "dlv3p.data"),
    ("dlv3p.weights", "dlv3p.annotations"),
    ("dlv3p.runs",),
    ("dlv3p.evaluation",),
    ("dlv3p.profiling",),
    ("dlv3p.training", "dlv3p.pictures"),
    ("dlv3p.train", "dlv3p.export"),
    ("dlv3p.compression", "dlv3p.prediction"),
    ("dlv3p.jupyter",),
    ("dlv3p.experiments",),
    ("dlv3p.__main__", "dlv3p.loading", "dlv3p.shards", "dlv3p.demo"),
)
"""From the ground up; rooms of one floor do not know each other. On top are the command and three old names."""

HEIGHTS = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LONGEST_MODULE = 400
LONGEST_CHAIN = 15
MOST_ROOMS = 17


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name, `__init__` under the name of its package."""
    paths = [path for package in ("cityscapes", "dlv3p") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules()


def room(module: str) -> str:
    """The room of a module: the first two parts of its name."""
    return ".".join(module.split(".")[:2])


def imports(path: Path) -> Iterator[str]:
    """The modules of the two packages that a file imports, inside functions too, except for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in MODULES)


IMPORTS = {module: set(imports(path)) - {module} for module, path in MODULES.items()}


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES if "." in module}
    assert rooms == set(HEIGHTS)
    assert sum(name.startswith("dlv3p.") for name in rooms) - len(FLOORS[-1]) <= MOST_ROOMS


def test_every_import_goes_down() -> None:
    upward = [
        f"{module} -> {imported}"
        for module, found in IMPORTS.items()
        for imported in found
        if "." in module and room(module) != room(imported) and HEIGHTS[room(imported)] >= HEIGHTS[room(module)]
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle() -> None:
    left = {module: set(found) for module, found in IMPORTS.items()}
    while ready := [module for module, found in left.items() if not found]:
        for module in ready:
            del left[module]
        for found in left.values():
            found.difference_update(ready)
    assert left == {}


def at_import(path: Path) -> Iterator[str]:
    """The modules that loading a file loads: its imports outside functions, except for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    in_functions = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in in_functions and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in names)


def test_no_import_begins_a_long_chain() -> None:
    """A reader who follows imports from any file comes to the ground soon."""
    loads = {module: (set(at_import(path)) & MODULES.keys()) - {module} for module, path in MODULES.items()}

    @cache
    def chain(module: str) -> tuple[str, ...]:
        return module, *max(map(chain, loads[module]), key=len, default=())

    longest = max(map(chain, MODULES), key=len)
    assert len(longest) <= LONGEST_CHAIN, " > ".join(longest)


def test_no_module_is_too_long_to_read() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_parameters_and_masks_need_no_torch() -> None:
    """What a person can type, and all that prepares Cityscapes, load fast: torch is above them."""
    free = [module for module in MODULES if module.startswith("cityscapes") or room(module) == "dlv3p.parameters"]
    external = [
        f"{module}: {node.names[0].name if isinstance(node, ast.Import) else node.module}"
        for module in free
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in ("torch", "torchvision")
    ]
    assert external == []
