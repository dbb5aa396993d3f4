"""``hrviewer-train``: one command for all plug-ins."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial

import pytest
import torch

from hrviewer.models import open_bundle
from hrviewer.training import TaskSet, cli

from .fixtures import toy

TASKS = TaskSet(
    "Squares",
    "Counts squares.",
    {
        "main": lambda data, bundle: toy(steps=4),
        "main/briefly": lambda data, bundle: toy(steps=2),
    },
)


@pytest.fixture
def run(monkeypatch, capsys):
    threads = torch.get_num_threads()
    # A process that makes batches is `train`'s test; starting one takes seconds.
    monkeypatch.setattr(cli, "train", partial(cli.train, workers=0))
    monkeypatch.setattr(cli, "installed_task_sets", lambda: {"squares": lambda: TASKS})

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hrviewer-train", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    yield run
    torch.set_num_threads(threads)


def test_a_role_is_trained_and_saved_with_its_command(run, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    code, out, err = run("squares", "main", "--out", str(one), "--seed", "3", "--device", "cpu")
    assert code == 0, err
    assert "step 4/4" in err
    bundle = open_bundle(one)
    card = bundle.roles["main"]
    assert json.loads(out) == card.metrics
    assert card.metrics["gain"] > 0
    predicted = card.training
    assert (predicted["data"], predicted["seed"], predicted["steps"]) == ("squares", 3, 4)
    assert not (one / "main.checkpoint").exists()

    words = shlex.split(predicted["command"])
    assert words[0] == "hrviewer-train"
    assert "--by" not in words
    assert run(*words[1:], "--out", str(two), "--device", "cpu")[0] == 0
    assert open_bundle(two).roles["main"].sha256 == card.sha256


@pytest.mark.slow
def test_a_variant_of_a_role_is_trained(run, tmp_path):
    words = "squares", "main", "--by", "briefly", "--out", str(tmp_path), "--device", "cpu"
    code, _, err = run(*words)
    assert code == 0, err
    predicted = open_bundle(tmp_path).roles["main"].training
    assert predicted["steps"] == 2
    assert predicted["command"].startswith("hrviewer-train squares main --by briefly")


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("gulls", "main"), "no training tasks are installed for 'gulls' (known: squares)"),
        (
            ("squares", "scout"),
            "squares has no training task 'scout': choose one of main, main --by briefly",
        ),
        (
            ("squares", "main"),
            "there is no model bundle 'squares': install its plug-in, or give --out",
        ),
    ],
)
def test_missing_inputs_are_reported_in_one_line(run, words, reported):
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith("hrviewer-train: ")
    assert reported in err
    assert err.count("\n") == 1
