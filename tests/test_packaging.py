"""Published packages: links that work on PyPI, compatible plug-ins, a complete sdist."""

from __future__ import annotations

import re
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HOME = PROJECT["urls"]["Homepage"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PICTURES = (ROOT / "docs" / "images").is_dir()
"""A source distribution has none."""
PLUGINS = ["plugins/histology", "plugins/crowd", "sample_data"]


@pytest.mark.parametrize("page", ["README.md", *(f"{p}/README.md" for p in PLUGINS)])
def test_links_of_pages_on_pypi_are_absolute_and_lead_to_files(page):
    raw = HOME.replace("https://github.com", "https://raw.githubusercontent.com") + "/main/"
    for link in LINK.findall((ROOT / page).read_text("utf-8")):
        assert link.startswith("https://"), link
        for base in (f"{HOME}/blob/main/", raw):
            if link.startswith(base) and (PICTURES or not link.endswith((".png", ".webp"))):
                assert (ROOT / link.removeprefix(base).partition("#")[0]).exists(), link


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")), ids=str
)
def test_links_between_pages_lead_to_headings(page):
    for link in LINK.findall((ROOT / page).read_text("utf-8")):
        if "://" in link or (link.endswith((".png", ".webp")) and not PICTURES):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in headings(target), link


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]


def test_pages_list_every_extra_and_every_environment_variable():
    installation = (ROOT / "docs" / "installation.md").read_text("utf-8")
    for extra in PROJECT["optional-dependencies"]:
        if extra not in ("all", "dev", "test"):
            assert f"`{extra}`" in installation, extra
    listed = (ROOT / "docs" / "environment.md").read_text("utf-8")
    for path in (ROOT / "hrviewer").rglob("*.py"):
        for name in re.findall(r"HRVIEWER_[A-Z]+", path.read_text("utf-8")):
            assert f"`{name}`" in listed, name


@pytest.mark.parametrize("folder", [*PLUGINS, "plugins/template"])
def test_plugins_are_pinned_to_a_compatible_hrviewer(folder):
    packaging = pytest.importorskip("packaging.requirements")
    plugin = tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [packaging.Requirement(line) for line in plugin["dependencies"]]
    (hrviewer,) = [line for line in needed if line.name == "hrviewer"]
    assert hrviewer.specifier.contains(PROJECT["version"])
    assert not hrviewer.specifier.contains("0.2.0")
    if folder in PLUGINS:
        extras = PROJECT["optional-dependencies"]
        (extra,) = [line for lines in extras.values() for line in lines if plugin["name"] in line]
        assert packaging.Requirement(extra).specifier.contains(plugin["version"])


def test_everything_is_in_all_except_timm():
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    inside = everything.removeprefix("hrviewer[").removesuffix("]").split(",")
    assert {*inside} == {*extras} - {"all", "timm"}


def test_the_source_distribution_has_its_tests_and_no_pictures(tmp_path):
    sdist = pytest.importorskip("hatchling.builders.sdist")
    (made,) = sdist.SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "hrviewer/viewer/napari.yaml",
        "tests/conftest.py",
        "plugins/template/pyproject.toml",
        "plugins/histology/tests/test_marked.py",
        "sample_data/pyproject.toml",
        "scripts/ci.py",
        "scripts/headless.sh",
        "benchmarks/overlays.py",
        "examples/crowds.ipynb",
        "docs/commands.md",
        "Makefile",
        "constraints.txt",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith("docs/images/") or "/.venv/" in name]
    assert not [name for name in names if name.endswith((".pyc", ".checkpoint"))]
    assert Path(made).stat().st_size < 12e6
