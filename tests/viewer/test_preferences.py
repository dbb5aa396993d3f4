"""Preferences: what the manifest declares, and what a window selects from them."""

from dataclasses import fields
from pathlib import Path

import yaml

import hrviewer.viewer
from hrviewer.viewer.preferences import (
    SECTION,
    Preferences,
    apply_preferences,
    read_preferences,
)


def test_the_manifest_declares_every_preference():
    manifest = yaml.safe_load(Path(hrviewer.viewer.__file__).with_name("napari.yaml").read_text())
    declared = manifest["contributions"]["configurations"][SECTION]["properties"]
    assert {name: about["default"] for name, about in declared.items()} == {
        field.name: field.default for field in fields(Preferences)
    }


def test_without_a_choice_the_defaults_hold():
    assert read_preferences() == Preferences()
    assert Preferences().run_path is None


def test_preferences_are_selected(controller, tmp_path):
    name = controller.state.installed_models()[0]
    apply_preferences(controller, Preferences(name, "cpu", str(tmp_path / "mine")))
    assert controller.state.settings.model.name == name
    assert controller.state.settings.device == "cpu"
    assert controller.resources.runs() == tmp_path / "mine"


def test_a_model_that_is_gone_is_left_out(controller):
    before, folder = controller.state.settings.model, controller.resources.runs()
    apply_preferences(controller, Preferences("gone"))
    assert controller.state.settings.model is before
    assert controller.resources.runs() == folder
