"""Run deep networks on gigapixel images: where they look, what they see, what it costs.

The notebook's verbs. Importing this loads neither torch nor Qt.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pandas import DataFrame

    from hrviewer.geometry import Rect
    from hrviewer.ground_truth import GroundTruth
    from hrviewer.models import ModelBundle
    from hrviewer.pyramid import Pyramid
    from hrviewer.runs import Run, Scaling
    from hrviewer.strategies import Strategy
    from hrviewer.viewer.view import View

__all__ = ["__version__", "compare", "cost", "export", "open", "run", "view"]

__version__ = _version("hrviewer")


def open(image: object) -> Pyramid:  # noqa: A001 - read as hrviewer.open
    """Open anything that is an image, as a pyramid of levels that is read lazily.

    Parameters
    ----------
    image : object
        A path, a URL, a NumPy, dask or zarr array, or an open pyramid.

    Returns
    -------
    Pyramid
        Use it in a ``with`` block, or close it.

    Raises
    ------
    UserError
        If it is no image that can be read.
    """
    from hrviewer.pyramid import open_pyramid

    return open_pyramid(image)


def run(
    image: object,
    model: str | Path | ModelBundle = "nuclei",
    strategy: str | Strategy = "patches",
    *,
    region: Rect | Sequence[int] | str | Path | None = None,
    budget: str | None = None,
    seed: int = 0,
    priors: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "float32",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    resume: bool = False,
    truth: str | Path | GroundTruth | None = None,
    **params: Any,
) -> Run:
    """Run a strategy on an image and return what it saw and spent.

    Parameters
    ----------
    image : object
        Whatever `open` takes.
    model : str, Path or Pack
        A pack's name, its folder, or a network's file with its card beside it.
    strategy : str or Strategy
        Its id: ``hrviewer strategies`` lists them.
    region : Rect, sequence of int, or path, optional
        ``(y, x, h, w)`` in level-0 pixels, or a file around whose shapes it lies; the whole image
        by default.
    budget : str, optional
        ``"2TFLOP"``, ``"30s"`` or ``"500patches"``; the strategy's own default otherwise.
    seed : int
        Of whatever the strategy draws at random.
    priors : mapping, optional
        What the strategy is told beforehand: ``"saliency"`` says where to look closely,
        ``"density"`` what was seen before. Each an array ``(rows, columns)`` over the whole image,
        an image's path, or a run.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda[:n]"`` or ``"mps"``.
    precision : {"float32", "bfloat16", "int8"}
        Numbers that networks compute in. What another than float32 changes on this image is
        measured, and a note of the run.
    cache : {"use", "off"}
        Whether results of earlier runs are served.
    out : str or Path, optional
        The run's folder, ``NAME.run.zarr``; in the user's data folder by default.
    resume : bool
        Go on with the run in `out`.
    truth : str, Path or Truth, optional
        What the answer is measured against: ``"auto"`` for a scene's own, a file of points, boxes
        or labels, or the objects themselves.
    **params
        The strategy's parameters.

    Returns
    -------
    Run
        With ``estimate``, ``truth``, ``cost``, ``patches``, ``output`` and ``saliency``.

    Raises
    ------
    UserError
        If anything asked for cannot be done; one line says what to do.
    """
    from hrviewer import runs

    return runs.run(
        image,
        model,
        strategy,
        region=region,
        budget=budget,
        seed=seed,
        priors=priors,
        device=device,
        precision=precision,
        cache=cache,
        out=out,
        resume=resume,
        truth=truth,
        **params,
    )


def compare(
    images: object,
    models: str | Path | ModelBundle | Sequence[str | Path | ModelBundle] = "nuclei",
    strategies: str | Sequence[str] = "all",
    *,
    truth: str | Path | GroundTruth | None = None,
    budgets: str | Sequence[str | None] | None = None,
    matched: bool = False,
    seeds: Sequence[int] = (0,),
    region: Rect | Sequence[int] | None = None,
    device: str = "auto",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
) -> DataFrame:
    """Run strategies on the same images with the same networks.

    Parameters
    ----------
    images : object
        Whatever `open` takes, a folder of images, or a list of them.
    models : str, Path or Pack, or a sequence
        As `run` takes them.
    strategies : str or sequence of str
        Ids, with parameters as ``"zoom:k=32"``; ``"all"`` for whatever is installed.
    truth : str, Path or Truth, optional
        As `run` takes it; an exhaustive ``patches`` run is the reference otherwise.
    budgets : str or sequence of str, optional
        For all strategies alike; several to sweep over; each one's own default otherwise.
    matched : bool
        Whether ``uniform`` is run at the FLOPs, and at the seconds, of every other row, too.
    seeds : sequence of int
        Of whatever strategies draw at random.
    region : Rect or sequence of int, optional
        ``(y, x, h, w)`` in level-0 pixels; the whole image by default.
    device, cache
        As `run` takes them.
    out : str or Path, optional
        Where the runs are kept; what is there is not run again.

    Returns
    -------
    DataFrame
        A row per run: what was run, ``estimate``, ``reference``, ``error``, ``game4``, the nominal
        costs, the run's folder and notes.

    Raises
    ------
    UserError
        If an image, a network, a strategy or the truth is not as it should be.
    """
    from hrviewer import runs

    return runs.compare(
        images,
        models,
        strategies,
        truth=truth,
        budgets=budgets,
        matched=matched,
        seeds=seeds,
        region=region,
        device=device,
        cache=cache,
        out=out,
    )


def cost(
    model: str | Path | ModelBundle,
    *,
    role: str = "main",
    device: str = "auto",
    memory: str | int | None = None,
    sides: Sequence[int] | None = None,
    search: bool = True,
) -> Scaling:
    """Measure what a network takes as its input grows, and the largest input that fits.

    Parameters
    ----------
    model : str, Path or Pack
        As `run` takes it.
    role : str
        Which of its networks.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    memory : str or int, optional
        What it may take, as ``"4GB"`` or in bytes; most of what is free by default.
    sides : sequence of int, optional
        Squares to measure, pixels; growing ones by default.
    search : bool
        Whether the largest that fits is looked for.

    Returns
    -------
    Scaling
        With ``points``, ``fits`` and ``largest``; shows itself in a notebook.

    Raises
    ------
    UserError
        If there is no such network, it takes one size only, or nothing fits.
    """
    from hrviewer import runs

    return runs.cost(model, role=role, device=device, memory=memory, sides=sides, search=search)


def view(
    image: object | None = None,
    model: str | Path | ModelBundle | None = None,
    strategy: str | None = None,
    *,
    live: bool = False,
) -> View:
    """Open napari with the panel docked.

    Parameters
    ----------
    image : object, optional
        Whatever `open` takes.
    model : str, Path or Pack, optional
        Which networks look, as `run` takes them.
    strategy : str, optional
        Where they look.
    live : bool
        Whether they look at what is visible as it changes.

    Returns
    -------
    View
        With ``viewer``, ``controller``, ``session`` and ``close()``.

    Raises
    ------
    UserError
        If it is no image that can be read.
    """
    from hrviewer.viewer.view import view

    return view(image, model=model, strategy=strategy, live=live)


def export(run: Run | str | Path, path: str | Path, to: str | None = None, **options: Any) -> Path:
    """Write a run as a file that other tools read.

    Parameters
    ----------
    run : Run, str or Path
        A run, or its folder.
    path : str or Path
        Where; nothing may be there yet.
    to : str, optional
        One of `hrviewer.io.FORMATS`; by the name's ending otherwise.
    **options
        The format's own, as ``contours=True`` for GeoJSON or ``dpi=300`` for a figure.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UserError
        If the format or an option is unknown, the place is taken, missing or full, or the run
        holds too little.
    """
    from hrviewer.io import export
    from hrviewer.runs import Run

    return export(run if isinstance(run, Run) else Run(run), path, to, **options)
