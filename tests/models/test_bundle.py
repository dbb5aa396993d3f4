from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from model_cards import card_fields, make_card

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelBundle, builtin, installed_bundles, list_models, open_bundle
from hrviewer.models.weights import read_weights


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    """A bundle of two networks."""
    roles = {}
    for role, name in (("main", "mcnn_shtechA_660"), ("scout", "mcnn_shtechB_110")):
        shutil.copy(shared / f"models/{name}.onnx", tmp_path / f"{role}.onnx")
        card = json.loads((shared / f"models/{name}.json").read_text())
        roles[role] = {"weights": f"{role}.onnx", "card": card}
    write(tmp_path, {"name": "people", "title": "People", "description": "…", "roles": roles})
    return tmp_path


def write(folder: Path, index: Any) -> None:
    (folder / "bundle.json").write_text(json.dumps(index))


def test_a_bundle_in_a_folder(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert (bundle.name, bundle.title, bundle.description) == ("people", "People", "…")
    assert list(bundle.roles) == ["main", "scout"]
    assert repr(bundle) == "<ModelBundle people: main, scout>"
    net = bundle.load("scout", "cpu", threads=1)
    assert net is bundle.load("scout", "cpu")
    assert net.card.name == "mcnn-shanghaitech-b"
    assert bundle.load("@gradient") is builtin("@gradient")
    with pytest.raises(HrviewerError, match="has no role 'head', only main, scout"):
        bundle.load("head")


def test_a_file_with_its_card_is_a_bundle(shared: Path) -> None:
    bundle = open_bundle(str(shared / "models/nic_bigan.onnx"))
    assert list(bundle.roles) == ["main", "encoder"]
    assert bundle.name == "nic-bigan"
    assert list(open_bundle(shared / "models/mcnn_shtechB_110.onnx").roles) == ["main"]


def test_a_head_uses_the_encoder_of_its_bundle(folder: Path, shared: Path) -> None:
    index = json.loads((folder / "bundle.json").read_text())
    index["roles"]["encoder"] = index["roles"]["head"] = index["roles"]["scout"]
    write(folder, index)
    nic = shared / "models/nic_bigan.onnx"
    bundle = open_bundle(f"{nic}+{folder}")
    assert bundle.roles["main"].name == "mcnn-shanghaitech-a"  # an embedding model has no output
    assert bundle.roles["encoder"].name == "nic-bigan"
    assert "head" not in bundle.roles
    index["roles"] = {"head": index["roles"]["head"]}
    (folder / "fitted").mkdir()
    shutil.copy(folder / "scout.onnx", folder / "fitted/scout.onnx")
    write(folder / "fitted", index)
    bundle = open_bundle(f"{folder / 'fitted'}+{nic}+{folder}")
    assert {"head", "encoder", "main"} <= set(bundle.roles)
    assert bundle.roles["encoder"].name == "nic-bigan"
    with pytest.raises(HrviewerError, match=r"nic-bigan adds nothing: .* as main=A,scout=B"):
        open_bundle(f"{nic}+{nic}")


def test_an_encoder_of_single_tiles_runs_on_many(shared: Path) -> None:
    import numpy as np

    nic = open_bundle(shared / "models/nic_bigan.onnx").load("encoder", "cpu")
    it = nic.card.input
    assert (it.tile, it.multiple_of, it.fixed, nic.stride, nic.halo) == (512, 64, False, 64, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)
    grid = nic(nic.card.prepare(pixels)[None])
    assert grid.shape == (1, 128, 2, 3)
    one = nic(nic.card.prepare(pixels[64:, 128:])[None])
    np.testing.assert_allclose(grid[0, :, 1, 2], one[0, :, 0, 0], rtol=1e-4, atol=1e-5)
    assert nic.flops(128, 192) == 6 * nic.flops(64, 64)


def test_combined_bundles_take_each_role_from_the_first_that_has_it(
    folder: Path, shared: Path
) -> None:
    bundle = open_bundle(f"{shared / 'models/mcnn_shtechB_110.onnx'}+{folder}")
    assert bundle.name == "mcnn-shanghaitech-b+people"
    assert [card.name for card in bundle.roles.values()] == ["mcnn-shanghaitech-b"] * 2
    assert bundle.load("main", "cpu").digest == open_bundle(folder).load("scout", "cpu").digest
    with pytest.raises(HrviewerError, match="mcnn-shanghaitech-b adds nothing: its main is left"):
        open_bundle(f"{folder}+{shared / 'models/mcnn_shtechB_110.onnx'}")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"name": "a"}, "roles: Field required"),
        ({"name": "a", "roles": {}, "title": 3}, "title"),
        ({"name": "a", "roles": {}}, "roles: .* at least 1 item"),
        ({"name": "a", "roles": {"main": {"weights": "", "card": {}}}, "extra": 3}, "extra"),
        ({"name": "a", "roles": {"main": {"weights": "../a.onnx", "card": {}}}}, "lie outside"),
        ({"name": "a", "roles": {"main": {"weights": "no.onnx", "card": {}}}}, "does not exist"),
        ({"name": "a", "roles": {"main": {"weights": "a.pth", "card": {}}}}, "run arbitrary code"),
        (
            {"name": "a", "roles": {"@main": {"weights": "a.onnx", "card": {}}}},
            "reserved for built-in roles",
        ),
        ({"name": "a", "roles": {"main": {"weights": "a.onnx", "card": {}}}}, "roles.main.card"),
        ([], "bundle.json"),
    ],
)
def test_an_invalid_index_is_reported_in_one_line(tmp_path: Path, index: Any, message: str) -> None:
    (tmp_path / "a.onnx").touch()
    write(tmp_path, index)
    with pytest.raises(HrviewerError, match=message) as raised:
        open_bundle(tmp_path)
    assert "\n" not in str(raised.value)


def test_invalid_bundles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HrviewerError, match=r"contains no bundle\.json"):
        open_bundle(tmp_path)
    with pytest.raises(HrviewerError, match="no model is named 'people-of-mars' \\(installed: "):
        open_bundle("people-of-mars")
    with pytest.raises(HrviewerError, match="does not exist"):
        open_bundle(tmp_path / "a.onnx")
    for suffix in ".pt", ".pth", ".pkl", ".bin", ".ckpt", ".PT":
        path = tmp_path / f"net{suffix}"
        path.touch()
        with pytest.raises(
            HrviewerError, match=r"can run arbitrary code.*export the model to ONNX"
        ):
            open_bundle(path)
    (tmp_path / "net.h5").touch()
    with pytest.raises(HrviewerError, match=r"\.onnx or \.safetensors files, not '\.h5'"):
        open_bundle(tmp_path / "net.h5")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(HrviewerError, match=r"net\.json is missing"):
        open_bundle(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text(json.dumps(card_fields()))
    assert isinstance(open_bundle(tmp_path / "net.onnx"), ModelBundle)


class Entry(importlib.metadata.EntryPoint):
    """A plug-in's bundle: its value is a path, a function that returns one, or broken."""

    def load(self) -> Any:
        if self.group == "broken":
            raise ImportError("no module\nat all")
        return Path(self.value) if self.group == "path" else lambda: self.value


def test_installed_bundles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = importlib.metadata.EntryPoints(
        [Entry(kind, str(folder), kind) for kind in ("path", "function", "broken")]
    )
    monkeypatch.setattr("hrviewer.models.bundle.entry_points", lambda group: entries)
    assert list(installed_bundles()) == ["broken", "function", "path"]
    assert installed_bundles()["path"].name == "path"
    assert open_bundle("path").name == open_bundle("function").name == "people"
    with pytest.raises(HrviewerError, match=r"the model broken .* cannot be imported") as raised:
        open_bundle("broken")
    assert "\n" not in str(raised.value)
    with pytest.raises(HrviewerError, match="installed: broken, function, path"):
        open_bundle("other")


def test_the_table_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").touch()
    fields = card_fields(task="embedding", output={"stride": 16, "width": 8, "classes": []})
    role = {"weights": "a.onnx", "card": fields}
    write(tmp_path, {"name": "a", "title": "Embeddings", "roles": {"encoder": role}})
    entries = importlib.metadata.EntryPoints(
        [Entry("a", str(tmp_path), "path"), Entry("b", "", "broken")]
    )
    monkeypatch.setattr("hrviewer.models.bundle.entry_points", lambda group: entries)
    table = list_models()
    assert [*table.loc["a"]] == ["Embeddings", "embedding", (), ["encoder"]]
    assert "cannot be imported" in table.loc["b", "title"]


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HrviewerError, match="cannot be read"):
        read_weights(tmp_path, make_card())
