"""The docked panel, a file for each part; parts know the controller and not each other.

`dock` arranges them; `common` has their labels, rows and bars. `run_settings` selects what is run,
`params_form` makes widgets of a strategy's parameters, `run_controls` runs it, `run_summary` plots
the interval, `overlay_legend` shows and hides overlays, `head_form` labels embeddings and fits a
head, `cost_breakdown` splits the time, `patch_inspector` shows a clicked patch, `open_run_button`
opens a run; `compare_tab` and `export_tab` are the other tabs.
"""

from hrviewer.viewer.widgets.dock import Panel

__all__ = ["Panel"]
