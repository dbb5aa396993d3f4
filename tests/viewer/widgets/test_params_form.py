"""The adapter for what magicgui keeps private, held to the installed version."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import pytest
from pydantic import Field
from qtpy.QtWidgets import QLabel

from hrviewer.strategies import Params, get_strategy, strategy_ids
from hrviewer.strategies.base import ChoiceTitles, SpecialValueText, VisibleIf
from hrviewer.viewer.widgets.params_form import ParamsForm


class Everything(Params):
    visible_if: ClassVar[VisibleIf] = {"share": ("method", ("threshold",))}
    special_value_text: ClassVar[SpecialValueText] = {"number": "as many as there are"}
    number: int = Field(-1, ge=-1, le=9, title="Number", description="How many")
    share: float = Field(0.25, ge=0, le=1, title="Share", description="How much")
    choice_titles: ClassVar[ChoiceTitles] = {"method": {"top-k": "the highest"}}
    method: Literal["top-k", "threshold"] = Field("threshold", title="Method")
    often: bool = Field(True, title="Often")
    words: str = Field("", title="Words")


@pytest.fixture
def form(qtbot):
    heard = []
    made = ParamsForm(Everything, heard.append)
    made.heard = heard
    qtbot.addWidget(made)
    return made


def test_defaults_are_shown_and_not_emitted(form):
    assert form.values() == {}
    shown = {name: field.value for name, field in form.fields.items()}
    assert shown == Everything().model_dump()


def test_titles_bounds_and_descriptions(form):
    labels = [label.text() for label in form.findChildren(QLabel)]
    labels.remove("as many as there are")
    assert labels[:5] == ["Number", "Share", "Method", "Often", "Words"]
    number = form.fields["number"]
    assert (number.min, number.max) == (-1, 9)
    assert number.native.toolTip() == "How many"
    assert form.fields["method"].choices == ("top-k", "threshold")
    box = form.fields["method"].native
    assert [box.itemText(i) for i in range(box.count())] == ["the highest", "threshold"]


def test_changes_are_emitted(form):
    form.fields["share"].value = 0.5
    form.fields["method"].value = "top-k"
    # A parameter that another choice makes ineffective would be refused.
    assert form.heard == [{"share": 0.5}, {"method": "top-k"}]
    form.fields["method"].value = "threshold"
    assert Everything(**form.values()).share == 0.5


def test_parameters_without_effect_on_a_task_are_hidden(qtbot):
    heard = []
    form = ParamsForm(get_strategy("patches").Params, heard.append)
    qtbot.addWidget(form)
    form.fields["aggregation"].value = "majority"
    form.set_task("classification")
    assert form.values() == {"aggregation": "majority"}
    form.set_task("density")
    assert heard[-1] == form.values() == {}
    hidden = {name for name, field in form.fields.items() if field.native.isHidden()}
    assert hidden == {"skip", "aggregation", "verify"}
    form.set_task("regression")
    assert not form.fields["skip"].native.isHidden()
    assert form.fields["aggregation"].native.isHidden()


def test_what_says_nothing_is_not_shown(form):
    def shown():
        labels = {w.text() for w in form.findChildren(QLabel) if not w.isHidden()}
        labels.remove("as many as there are")
        return {name for name, field in form.fields.items() if not field.native.isHidden()}, labels

    assert shown() == ({"number", "share", "method", "often", "words"},
                       {"Number", "Share", "Method", "Often", "Words"})  # fmt: skip
    form.fields["method"].value = "top-k"
    assert shown() == ({"number", "method", "often", "words"},
                       {"Number", "Method", "Often", "Words"})  # fmt: skip
    form.fields["method"].value = "threshold"
    assert "share" in shown()[0]
    assert form.fields["often"].text == ""


@pytest.mark.parametrize("name", strategy_ids())
def test_parameters_that_are_not_always_shown_hang_on_choices_there_are(name):
    model = get_strategy(name).Params
    for one, (other, choices) in model.visible_if.items():
        assert one in model.model_fields
        assert set(choices) < set(get_args(model.model_fields[other].annotation))
    for one, titles in model.choice_titles.items():
        assert set(titles) <= set(get_args(model.model_fields[one].annotation))


@pytest.mark.parametrize("name", strategy_ids())
def test_every_strategy_has_a_form(qtbot, name):
    form = ParamsForm(get_strategy(name).Params, lambda values: None)
    qtbot.addWidget(form)
    assert form.values() == {}


def test_words_lie_over_a_least_value_that_is_no_amount(form):
    words = next(w for w in form.findChildren(QLabel) if w.text() == "as many as there are")
    number = form.fields["number"]
    assert words.parent() is number.native.lineEdit()
    assert not words.isHidden()
    number.value = 3
    assert words.isHidden()
    assert form.values() == {"number": 3}
    number.value = -1
    assert not words.isHidden()
    assert form.values() == {}


@pytest.mark.parametrize("name", strategy_ids())
def test_least_values_are_those_of_parameters(name):
    """What has words for its least value has that for its default, or says what it does then."""
    model = get_strategy(name).Params
    for parameter in model.special_value_text:
        field = model.model_fields[parameter]
        if field.annotation is str:
            assert field.default == ""
            continue
        bound = next(m.ge for m in field.metadata if hasattr(m, "ge"))
        assert str(bound) in field.description or model.special_value_text[parameter] == "none"
