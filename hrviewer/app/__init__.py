"""The application without a front end: what is selected, shown and running.

`state` is evented and holds the settings, the open images and everything that belongs to each;
`maps` has results as plain arrays; `services` run inference, load, compare and export.
`application` builds them and gives them one clock. Nothing here imports napari, Qt or vispy, or
touches a layer: a front end hands in an `ImageSource` for each image and listens to the state.
"""
