"""The docked panel: one file per part, each of which knows only the controller.

`docked` puts the parts below each other; `parts` has what they share; `choice` says what to run,
`params` turns a strategy's parameters into widgets, `running` runs it, `interval` shows how the
answer's interval narrows, `legend` toggles overlays,
`labelling` takes labels on codes and fits a head to them,
`breakdown` shows where the time went, `clicked` a patch that was clicked on,
`files` opens and exports runs; `comparing` is the second tab, with a plot from `plotted`.
"""

from hrviewer.viewer.widgets.dock import Panel

__all__ = ["Panel"]
