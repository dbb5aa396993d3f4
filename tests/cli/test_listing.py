"""`strategies` and `models`: what there is to choose from."""

from __future__ import annotations

import json

from toys import ToyBundle, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.models import Network

from .calling import call, error_of


def test_strategies():
    text = call("strategies").stdout
    listed = json.loads(call("strategies", "--json").stdout)
    assert {entry["id"] for entry in listed} >= {"uniform", "patches"}
    for entry in listed:
        assert entry["id"] in text
        assert entry["when"] in text
        assert entry.keys() >= {"title", "family", "roles", "default_budget"}
        assert entry["params"]["type"] == "object"
        assert all(f"--set {name}=" in text for name in entry["params"]["properties"])


class Installed:
    """An entry of `installed_bundles`."""

    def __init__(self, bundle: ToyBundle | None) -> None:
        self.bundle = bundle

    def load(self) -> ToyBundle:
        if self.bundle is None:
            raise HrviewerError("the bundle torn does not import: install its plug-in again")
        return self.bundle


def test_models_list(monkeypatch):
    bundles = {"toy": Installed(toy_bundle()), "torn": Installed(None)}
    monkeypatch.setattr("hrviewer.models.installed_bundles", lambda: bundles)
    for args in (["models"], ["models", "list"]):
        result = call(*args)
        (line,) = result.stdout.splitlines()
        assert line.startswith("toy ")
        assert "main" in line
        assert "torn does not import" in result.stderr
    monkeypatch.setattr("hrviewer.models.installed_bundles", dict)
    assert "no model is installed" in call("models").stderr


def test_models_show_and_check(monkeypatch):
    bundle = toy_bundle()
    monkeypatch.setattr("hrviewer.models.open_bundle", lambda *_: bundle)
    text = call("models", "show", "toy").stdout
    for role, card in bundle.roles.items():
        assert f"role      {role}" in text
        assert card.name in text
    result = call("models", "check", "toy")
    assert len(result.stdout.splitlines()) == len(bundle.roles)
    assert "main: bright, stride 4, halo 0, " in result.stdout

    def lying(role: str) -> Network:
        raise HrviewerError(
            "the card's output.stride is not what the network does: correct the card"
        )

    monkeypatch.setattr(bundle, "load", lying)
    result = call("models", "check", "toy", status=1)
    assert len(result.stderr.splitlines()) == len(bundle.roles)
    assert "output.stride" in result.stderr


def test_models_check_reports_a_card_mismatch(shared, tmp_path):
    source = shared / "models" / "mcnn_shtechB_110.onnx"
    assert "stride 4, halo 40, 42.1 kFLOP per pixel" in call("models", "check", source).stdout
    card = json.loads(source.with_suffix(".json").read_text())
    card["output"]["stride"] = 8
    (tmp_path / "liar.onnx").write_bytes(source.read_bytes())
    (tmp_path / "liar.json").write_text(json.dumps(card))
    assert "output.stride" in error_of("models", "check", tmp_path / "liar.onnx")
