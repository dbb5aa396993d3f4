"""Files in and out: exported runs, annotations, ground truth, converted images.

`writers` has one class per export format, `ground_truth` the readers of annotation files, `figures`
plots and reports. Importing this package imports no format.
"""

from hrviewer.io.exportable import Exportable
from hrviewer.io.writers import RunWriter, export, get_writer, writer_names

__all__ = ["Exportable", "RunWriter", "export", "get_writer", "writer_names"]
