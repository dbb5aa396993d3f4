from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hrviewer.pyramid import tile_cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing in the user's own cache folder, and start with no tile in memory."""
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _no_tiles() -> Iterator[None]:
    limit = tile_cache().limit
    tile_cache().clear()
    yield
    tile_cache().limit = limit
    tile_cache().clear()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def svs(shared: Path) -> Path:
    return shared / "data" / "wsi" / "CMU-1-Small-Region.svs"


@pytest.fixture
def tcga(shared: Path) -> Path:
    return shared / "data" / "wsi" / "tcga-cr-7395-01a-01-ts1.svs"


@pytest.fixture(scope="session")
def cases(shared: Path) -> Path:
    folder = shared / "cases" / "formats"
    if not folder.is_dir():
        pytest.skip(f"the files to test with are not in {folder}")
    return folder
