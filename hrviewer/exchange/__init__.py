"""Out: runs as the files that other tools read.

One module per format, each with ``write(run, target)``; `FORMATS` says which there are. Importing
this imports none of them.
"""

from hrviewer.exchange.formats import FORMATS, Exportable, Format, export

__all__ = ["FORMATS", "Exportable", "Format", "export"]
