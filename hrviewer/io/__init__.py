"""Out: runs as the files that other tools read.

`formats` holds one module per format, `FORMATS` says which there are; `truth` reads what others
wrote. Importing this imports none of them.
"""

from hrviewer.io.writers import FORMATS, Exportable, Format, export

__all__ = ["FORMATS", "Exportable", "Format", "export"]
