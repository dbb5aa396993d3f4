"""Batches: many images by one strategy, on the cores, GPUs and machines that there are.

Every image is an ordinary run in a folder of its own, so a batch is resumed to the patch. The work
is distributed by dask.distributed; there is no scheduler here.
"""

from hrviewer.batch.image_list import ImageEntry, check_images, list_entries
from hrviewer.batch.job import Batch, batch
from hrviewer.batch.pool import inference_pool
from hrviewer.batch.report import require_batch_file, write_batch_file
from hrviewer.batch.results_table import read_table
from hrviewer.batch.settings import BatchSettings
from hrviewer.batch.totals import folder_totals, quantities
from hrviewer.callable_package import make_callable

__all__ = [
    "Batch",
    "BatchSettings",
    "ImageEntry",
    "batch",
    "check_images",
    "folder_totals",
    "inference_pool",
    "list_entries",
    "quantities",
    "read_table",
    "require_batch_file",
    "write_batch_file",
]

make_callable(__name__, batch)
