"""Embeddings on the screen: colours that stay, and similarity to a location that was clicked."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from toys import picture

from hrviewer.app.maps.result_maps import ResultMaps
from viewer.conftest import errors, until_quiet


def test_a_run_shows_its_embeddings_and_a_click_their_similarity(controller, model, add, finish):
    image = picture(300, 420)
    image[:64, :64] = image[128:192, 256:320] = (200, 20, 90)
    add(model, image)
    controller.state.set_strategy("compression")
    controller.run_service.start()
    finish(controller)
    assert errors(controller) == []
    coded = controller.overlays.embedding_layers
    names = [layer.name for layer in model.layers]
    assert (
        names.index("embeddings")
        < names.index("similarity")
        < names.index(controller.overlays.layers["output"].name)
    )
    assert not coded.colours.visible
    assert (coded.embeddings.colours[..., 3] == 255).all()

    def click(y, x):
        controller.inspect_patch((y, x))
        until_quiet(controller)

    click(30, 30)  # the embeddings are hidden
    assert not coded.similarity.visible
    coded.colours.visible = True
    click(30, 30)
    assert coded.similarity.visible
    alike = coded.embeddings.similarity
    assert alike[:16, :16].min() > 0.99
    assert alike[32:48, 64:80].min() > 0.99
    assert np.median(alike) < 0.05
    # The patch that was clicked is the tile, not the request for the features of all.
    assert controller.overlays.maps.patch_at(30, 30).role == "encoder"
    # A run that is opened again shows them, too; another strategy has none.
    again = ResultMaps.from_run(controller.state.run).embeddings
    np.testing.assert_array_equal(again.colours[..., 3], coded.embeddings.colours[..., 3])
    controller.state.set_strategy("patches")
    controller.run_service.start()
    finish(controller)
    assert controller.overlays.embedding_layers is None
    assert not {"embeddings", "similarity"} & {layer.name for layer in model.layers}


def test_a_few_clicks_make_a_head_that_can_be_chosen_at_once(controller, model, add, finish):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (300, 420, 3)).astype(np.uint8)
    image[:, 200:] += 120
    base = add(model, image)
    controller.state.set_strategy("compression")
    labelling = controller.head_trainer
    heard = []
    labelling.availability_changed.connect(heard.append)
    labelling.fit()
    assert "no embeddings to fit" in errors(controller)[-1]
    controller.run_service.start()
    finish(controller)
    controller.tick()
    assert heard == [True]
    coded = controller.overlays.embedding_layers

    def click(y, x):
        controller.inspect_patch((y, x))
        fitted()

    def fitted():
        while controller.has_pending_work or labelling.is_running:
            controller.tick()
            time.sleep(0.005)
        controller.tick()

    labelling.set_label("left")
    assert coded.colours.visible
    for place in ((30, 30), (30, 130), (130, 30), (290, 190)):
        click(*place)
    labelling.fit()
    fitted()
    assert "at least two classes" in errors(controller)[-1]
    assert labelling.head is None
    labelling.set_label("right ")
    for place in ((30, 230), (30, 400), (170, 300), (250, 350)):
        click(*place)
    assert not coded.similarity.visible  # a click does one thing at a time
    assert Counter(label.label for label in labelling.labels()) == {"left": 4, "right": 4}
    assert model.layers.selection.active == base
    assert len(np.unique(controller.labels.layer.face_color, axis=0)) == 2
    messages = []
    labelling.message_changed.connect(messages.append)
    labelling.fit()
    fitted()
    assert labelling.head.error == 0
    assert "error rate 0.0%" in messages[-1]
    # Chosen, its classes are the answer; what was encoded is not encoded again.
    encoder = controller.state.settings.model.networks["encoder"]
    looked = encoder.inferred
    labelling.use_head()
    controller.state.settings.model.load(
        "head", "cpu"
    )  # which takes as long as importing torch does
    assert list(controller.state.settings.model.roles["head"].classes) == ["left", "right"]
    assert controller.state.run_state != "idle"
    finish(controller)
    assert encoder.inferred == looked
    assert controller.state.run.estimate["per_class"]["left"] == pytest.approx(300 * 200)
    # Live, maps are of the classes that the chosen strategy predicts.
    controller.live.set_enabled(True)
    for strategy, planes in (("compression", 2), ("patches", 1), ("compression", 2)):
        controller.state.set_strategy(strategy)
        end = time.monotonic() + 60
        while controller.overlays.maps.record.output.values.shape[0] != planes:
            assert time.monotonic() < end
            controller.tick()
    while controller.overlays.embedding_layers is None:
        assert time.monotonic() < end
        controller.tick()
        controller.overlays.refresh()
    controller.live.set_enabled(False)
    # A second head takes the first one's place; labels go with their layer.
    labelling.fit()
    fitted()
    labelling.use_head()
    assert len(controller.state.settings.model.bundles) == 2
    model.layers.remove(controller.labels.layer)
    assert labelling.labels() == []
