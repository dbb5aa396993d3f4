"""Services: each does one kind of work and knows the state, not the front end.

They announce through the state's signals what others must react to (`run_starting`, `run_shown`,
`overlays_replaced`, `patch_clicked`); results of other threads arrive through `background`.
"""
