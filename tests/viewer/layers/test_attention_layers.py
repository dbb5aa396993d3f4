"""What a token attends to is drawn where it lies, and comes with a click."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Joint, picture

from viewer.conftest import errors, until_quiet


class Attentive(Joint):
    """All tokens attend to the reddest, half as much to themselves; the first two are merged."""

    has_attention = True

    def attention(self, tokens, boxes, merge=0.0):
        n = len(tokens)
        weights = np.eye(n, dtype=np.float32) / 3
        weights[:, tokens[:, 0].sum((1, 2)).argmax()] += 2 / 3
        return weights, np.maximum(np.arange(n), 1)


@pytest.fixture
def toys(toys):
    toys.networks["transformer"] = Attentive("transformer", tile=16)
    return toys


def test_a_click_on_a_token_shows_where_it_looked(controller, model, add, finish):
    image = picture(300, 420)
    image[256:272, 64:80] = (255, 0, 0)
    add(model, image)
    controller.state.set_strategy("transformer")
    controller.state.settings.params = {"detail": "uniform", "finest": 16, "context": 0}
    controller.run_service.start()
    finish(controller)
    assert errors(controller) == []

    def click(y, x):
        controller.inspect_patch((y, x))
        until_quiet(controller)

    assert controller.overlays.attention_layers is None
    click(30, 200)
    shown = controller.overlays.attention_layers
    assert [layer.name for layer in shown] == ["merged", "attention received", "attention"]
    names = [layer.name for layer in model.layers]
    assert names.index("attention") < names.index(controller.overlays.layers["output"].name)
    assert not shown.any_visible
    looks = shown.attention.weights
    assert looks[16, 4] == 1
    assert looks[1, 12] == pytest.approx(0.5)
    assert np.count_nonzero(looks) == 2
    assert shown.attention.attention_received[16, 4] == 1
    click(100, 100)  # nobody looks
    assert looks[6, 6] == 0
    shown.weights.visible = True
    click(100, 100)
    assert looks[6, 6] == pytest.approx(0.5)
    assert looks[1, 12] == 0
    controller.overlays.set_hidden(True)
    assert not shown.any_visible
    controller.overlays.set_hidden(False)
    assert shown.weights.visible
    # They go with the run that they are of.
    controller.state.set_strategy("patches")
    controller.run_service.start()
    finish(controller)
    assert not {"attention", "attention received", "merged"} & {
        layer.name for layer in model.layers
    }


def test_an_error_at_a_click_is_reported(controller, model, add, finish, monkeypatch):
    add(model, picture(300, 420))
    controller.state.set_strategy("transformer")
    controller.state.settings.params = {"detail": "uniform", "finest": 16, "context": 0}
    controller.run_service.start()
    finish(controller)
    seen = []
    controller.state.patch_inspected.connect(seen.append)

    def click():
        controller.inspect_patch((30, 200))
        until_quiet(controller)

    def broken(*_, **__):
        raise RuntimeError("out of ink")

    monkeypatch.setattr(Attentive, "attention", broken)
    click()
    (message,) = errors(controller)
    assert message == "the attention of this token cannot be shown: RuntimeError: out of ink"
    assert [look.pixels is None for look in seen] == [True, False]  # and what it cost, all the same
    monkeypatch.undo()
    monkeypatch.setattr("hrviewer.app.services.patch_inspection.patch_preview", broken)
    click()
    assert errors(controller)[1:] == ["the patch cannot be read: RuntimeError: out of ink"]
    assert len(seen) == 3
