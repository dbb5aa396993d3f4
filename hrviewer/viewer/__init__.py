"""The napari front end.

`image` displays a pyramid as a lazy layer; `layers` are napari layers that listen to the
application's state; `controller` is the application together with its layers; `widgets` has the
docked panel and is, with `image.layer_refresh`, the only part that imports Qt; `contributions` is
named by the manifest; `view` opens a window from Python. Nothing heavy is imported here: napari
reads this package's manifest each time it starts.
"""
