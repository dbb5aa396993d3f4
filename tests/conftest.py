"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Machines that test are busy: how long an example takes says nothing.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# The fastest back end would be measured for each network of each test; tests of that ask for it.
os.environ.setdefault("HRVIEWER_BACKEND", "torch")

SHARED = Path(os.environ.get("HRVIEWER_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_finish():
    """Keep what was imported out of garbage collections, which a window makes many of."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory, monkeypatch):
    """Keep the user's caches and runs out of the tests."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("HRVIEWER_CACHE", str(home / "cache" / "hrviewer"))
    monkeypatch.setenv("HRVIEWER_DATA", str(home / "data" / "hrviewer"))


@pytest.fixture(autouse=True)
def no_shared_networks():
    """Load networks again in each test."""
    yield
    if "hrviewer.models.network_cache" in sys.modules:
        sys.modules["hrviewer.models.network_cache"].clear_networks()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real slides, photos and published networks, where they lie beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is needed and {SHARED} is not there (see HRVIEWER_SHARED)")
    return SHARED
