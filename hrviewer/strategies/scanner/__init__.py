"""Lightweight scanner networks: a small model on every pixel, the main model where needed.

`scanner` is the strategy, `params` its parameters; `scan` runs the scanner, and `pilot` measures on
a whole image what the cells of a live view have in common.
"""

from hrviewer.strategies.scanner.params import ScannerParams
from hrviewer.strategies.scanner.scanner import Scanner

__all__ = ["Scanner", "ScannerParams"]
