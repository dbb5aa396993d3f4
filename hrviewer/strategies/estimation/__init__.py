"""Estimating a total: a coarse pass, measurements of selected cells, and a correction.

`coarse_pass` is cheap inference on the whole region, `sampling_grid` the cells to measure.
`two_phase` measures cells and corrects the predictions for the others (`regression`); `sampling`
draws cells and estimates the total without bias, `intervals` gives its confidence intervals.
`stand_in` corrects the count of a model that predicts a whole region in place of ``main``.
"""
