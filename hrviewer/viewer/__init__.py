"""The napari face: the only part that knows napari and Qt.

`levels` shows a pyramid as a layer; `picture` holds what is drawn over it, without napari;
`overlays` puts that on layers; `controller` runs strategies on a thread and knows no widget;
`panel` is the docked panel; `view` opens a window from Python. Nothing heavy is imported here:
napari reads this package's manifest each time it starts.
"""
