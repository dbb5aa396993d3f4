"""The line of text on the canvas."""

from __future__ import annotations


def test_only_a_text_of_hrviewer_is_taken_off_the_canvas(model, controller):
    text = model.canvas.overlays.text
    text.text, text.visible = "my note", True
    controller.state.hud_changed.emit("")
    assert text.visible
    controller.state.hud_changed.emit("12 tiles/s")
    assert (text.text, text.visible) == ("12 tiles/s", True)
    controller.close()
    assert not text.visible
