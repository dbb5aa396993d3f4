"""Log messages of a run: quiet by default, useful on request."""

from __future__ import annotations

import logging
import subprocess
import sys

from toys import picture, toy_bundle

import hrviewer


def test_a_run_logs_its_start_its_models_and_its_end(caplog, tmp_path):
    with caplog.at_level(logging.DEBUG, logger="hrviewer"):
        hrviewer.run(picture(), toy_bundle(), "patches", out=tmp_path / "a.run.zarr")
    messages = [record.getMessage() for record in caplog.records]
    for part in ("opened ", "running ", "loaded ", "request 0: PatchRequest", "finished "):
        assert any(message.startswith(part) for message in messages), (part, messages)
    assert all(record.name.startswith("hrviewer.") for record in caplog.records)


def test_nothing_is_printed_by_default():
    code = "import logging, hrviewer; logging.getLogger('hrviewer.engine').warning('loud')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
