from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared test data, beside the checkout unless `HRVIEWER_SHARED` says otherwise."""
    folder = Path(os.environ.get("HRVIEWER_SHARED") or Path(__file__).parents[1].parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"the shared test data is not at {folder} (set HRVIEWER_SHARED)")
    return folder
