"""Models in use: `load` returns a `Model`, whose `run` is that of `hrviewer.run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hrviewer.engine import (
    Budget,
    Callback,
    DeviceScheduler,
    LoadedModels,
    RunControl,
    recommended_streams,
    validate_priors,
)
from hrviewer.errors import ParameterError
from hrviewer.geometry import RectLike
from hrviewer.ground_truth import GroundTruth
from hrviewer.models import ModelBundle, ModelCard, no_model_error, open_bundle
from hrviewer.phases import LOADING, Phase
from hrviewer.pyramid import using_pyramid
from hrviewer.runs.evaluation import make_evaluator
from hrviewer.runs.priors import as_priors, prior_sources
from hrviewer.runs.progress import with_progress
from hrviewer.runs.run import Run
from hrviewer.runs.runner import RunSpec, result_cache
from hrviewer.runs.settings import RegionsLike, merge_params, parse_params, resolve_region
from hrviewer.runs.tissue import TissueLike, resolve_tissue
from hrviewer.strategies import Strategy, get_strategy

__all__ = ["Model", "ModelLike", "as_bundle", "device_settings", "load", "run"]


class Model:
    """A model on a device; its networks stay loaded from run to run.

    Parameters
    ----------
    bundle : ModelBundle
        The networks of the model.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : {"float32", "bfloat16", "int8"}
        Precision of inference.

    Attributes
    ----------
    bundle, device, precision
        As given.
    name : str
        Name of the bundle.
    roles : Mapping[str, ModelCard]
        The card of each role.

    See Also
    --------
    hrviewer.load : load a model by its name or path.

    Examples
    --------
    >>> with hrviewer.load("nuclei", device="cpu") as model:  # doctest: +SKIP
    ...     run = model.run("slide.svs", "zoom")
    """

    def __init__(
        self, bundle: ModelBundle, device: str = "auto", precision: str = "float32"
    ) -> None:
        self.bundle, self.device, self.precision = bundle, device, precision
        self.name, self.roles = bundle.name, bundle.roles

    def __repr__(self) -> str:
        roles = ", ".join(self.roles)
        return f"<Model {self.name} on {self.device} in {self.precision}: {roles}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def card(self) -> ModelCard:
        """The card of the main network, or of the first if there is none."""
        return self.bundle.card

    def run(self, image: object, strategy: str | Strategy = "patches", **settings: Any) -> Run:
        """Run inference on an image with a strategy.

        Parameters
        ----------
        image, strategy
            As `hrviewer.run` takes them.
        **settings
            All other arguments of `hrviewer.run`, and parameters of the strategy.

        Returns
        -------
        Run

        Raises
        ------
        HrviewerError
            As `hrviewer.run` does.

        Examples
        --------
        >>> loaded = hrviewer.load(model, device="cpu")
        >>> run = loaded.run(image, "patches", region=(0, 0, 512, 512), progress=False)
        >>> run.complete
        True
        """
        return run(image, self, strategy, **settings)

    def close(self) -> None:
        """Release the loaded networks and their memory; a later run loads them again."""
        self.bundle.release()


ModelLike = str | Path | ModelBundle | Model


def load(
    model: ModelLike | None = None,
    *,
    device: str = "auto",
    precision: str = "float32",
    trust: bool = False,
    progress: bool = True,
) -> Model:
    """Load a model, once for many runs.

    Networks are shared within the process: `hrviewer.run`, `hrviewer.compare` and the window use
    the same ones for the same device and precision.

    Parameters
    ----------
    model : str, Path or ModelBundle
        Name, file or folder of a model; see `hrviewer.models.open_bundle`.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : {"float32", "bfloat16", "int8"}
        Precision of inference. In int8 the model is calibrated on each image, at its first run.
    trust : bool
        Whether files that can run code when opened (TorchScript, torch.export) are allowed.
    progress : bool
        Whether to show the phases of loading in a terminal or a notebook.

    Returns
    -------
    Model

    Raises
    ------
    HrviewerError
        If there is no such model, it does not match its card, or the device is missing.

    Examples
    --------
    >>> nuclei = hrviewer.load("nuclei", device="cpu")  # doctest: +SKIP
    >>> nuclei.card.task, nuclei.card.classes  # doctest: +SKIP
    ('density', ('nucleus',))
    >>> run = nuclei.run("slide.svs", "zoom")  # doctest: +SKIP
    """
    loaded = Model(as_bundle(model, trust), device, precision)
    if "main" in loaded.roles:
        scheduler = DeviceScheduler(streams=recommended_streams())
        try:
            with with_progress(progress, None) as on_event:
                if on_event is not None:
                    on_event(Phase(LOADING, loaded.name))
                models = LoadedModels(loaded.bundle, scheduler, device, precision)
                if precision == "int8":
                    models.in_float32()  # calibrated when there is an image
                else:
                    models["main"]
        finally:
            scheduler.close()
    return loaded


def as_bundle(model: ModelLike | None, trust: bool = False) -> ModelBundle:
    """Return the bundle of a model, opened if it is a name or a path.

    With `trust`, its weights may be files that can run code when opened.

    Raises
    ------
    HrviewerError
        If no model is given, with those that are installed; or if there is no such model.
    """
    if model is None:
        raise no_model_error()
    if isinstance(model, Model):
        return model.bundle
    return model if isinstance(model, ModelBundle) else open_bundle(model, trust)


def run(
    image: object,
    model: ModelLike | None = None,
    strategy: str | Strategy = "patches",
    *,
    series: str | int | None = None,
    plane: Mapping[str, int] | None = None,
    channels: Sequence[int | str] | None = None,
    pixel_size: float | Sequence[float] | None = None,
    value_range: Sequence[float] | None = None,
    region: RectLike | RegionsLike | None = None,
    tissue: TissueLike = "off",
    budget: str | Budget | None = None,
    seed: int = 0,
    priors: Mapping[str, Any] | None = None,
    device: str = "auto",
    precision: str = "float32",
    cache: Literal["use", "off"] = "use",
    out: str | Path | None = None,
    resume: bool = False,
    truth: str | Path | GroundTruth | None = None,
    progress: bool = True,
    on_event: Callback | None = None,
    control: RunControl | None = None,
    scheduler: DeviceScheduler | None = None,
    params: Mapping[str, Any] | None = None,
    **more_params: Any,
) -> Run:
    """Run inference on an image with a strategy.

    Parameters
    ----------
    image : object
        Any input of `hrviewer.open`: a path, a URL, an array or a pyramid.
    model : str, Path, Model or ModelBundle
        Name or folder of a model bundle, a model file with its card next to it, or a model of
        `hrviewer.load`, with its device and precision. There is no default.
    strategy : str or Strategy
        A strategy's id; `hrviewer.strategies` lists them.
    series, plane, channels, pixel_size, value_range
        Options of the image, as `hrviewer.open` takes them.
    region : Rect, sequence of int, Region, path, or a list of these, optional
        ``(y, x, h, w)`` in level-0 pixels, or what is drawn: regions, or a file of them. Then only
        tiles that touch a region are processed, what is inside counts, and ``header["regions"]``
        has the measurements of each. The whole image by default.
    tissue : {"auto", "off"}, path or Region
        Leave out all but tissue, as found by `find_tissue`, read from a file of regions or given:
        patches without any cost nothing, and densities are of tissue.
    budget : str, optional
        ``2TFLOP``, ``30s`` or ``500patches``; the strategy's own default otherwise.
    seed : int
        Random seed of the strategy.
    priors : mapping, optional
        Prior maps by name; see `as_priors`.
    device : str
        ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
    precision : {"float32", "bfloat16", "int8"}
        Precision of inference. The deviation of bfloat16 and int8 from float32 is measured on
        this image and noted in the run.
    cache : {"use", "off"}
        Whether results of earlier runs are reused.
    out : path, optional
        The run folder, ``NAME.run.zarr``; in the user's data folder by default.
    resume : bool
        Continue the run in `out`.
    truth : str, Path or GroundTruth, optional
        Ground truth to evaluate the estimate against: a file, a folder, or ``auto`` for that of a
        synthetic image; see `hrviewer.io.ground_truth`.
    progress : bool
        Whether to show a progress bar, in a terminal or a notebook.
    on_event : callable, optional
        Called on this thread with phases, requests, results, maps and progress as they come.
    control : RunControl, optional
        Pauses and stops the run from another thread.
    scheduler : DeviceScheduler, optional
        Where networks run instead of this process's own device: on other processes or machines by
        `hrviewer.batch.inference_pool`.
    params : mapping, optional
        Parameters of the strategy, by name.
    **more_params
        The same as keywords, where no argument above has their name.

    Returns
    -------
    Run

    Raises
    ------
    HrviewerError
        If an input is invalid or the run cannot be carried out; the message names the remedy.

    Examples
    --------
    >>> run = hrviewer.run(image, model, "uniform", region=(0, 0, 1024, 1024), progress=False)
    >>> run.complete, run.estimate["kind"]
    (True, 'count')
    >>> run.maps["output"].shape == run.output.shape  # channels, rows, columns
    True
    """
    bundle = as_bundle(model)
    device, precision = device_settings(model, device, precision)
    with using_pyramid(
        image,
        series=series,
        plane=plane,
        channels=channels,
        pixel_size=pixel_size,
        value_range=value_range,
    ) as pyramid:
        chosen = get_strategy(strategy) if isinstance(strategy, str) else strategy
        card = bundle.roles.get(chosen.answering_role(bundle.roles))
        evaluator = make_evaluator(truth, pyramid, card)
        within, regions = resolve_region(pyramid, region)
        spec = RunSpec(
            pyramid,
            bundle,
            chosen,
            parse_params(chosen, merge_params(params, more_params)),
            region=within,
            regions=regions,
            tissue=resolve_tissue(pyramid, tissue),
            budget=Budget.parse(budget) if isinstance(budget, str) else budget,
            seed=seed,
            priors=validate_priors(chosen, as_priors(priors or {})),
            prior_sources=prior_sources(priors or {}),
        )
        own = DeviceScheduler(streams=recommended_streams()) if scheduler is None else scheduler
        try:
            with with_progress(progress, on_event) as on_event:
                done = spec.run(
                    LoadedModels(bundle, own, device, precision),
                    out=Path(out) if out else None,
                    resume=resume,
                    cache=result_cache() if cache == "use" else None,
                    on_event=on_event,
                    control=control,
                )
        finally:
            if scheduler is None:
                own.close()
        if evaluator is not None:
            done.set_evaluation(evaluator(done))
        return done


def device_settings(model: ModelLike | None, device: str, precision: str) -> tuple[str, str]:
    """Return device and precision of a run: those of a loaded model, or as given.

    Raises
    ------
    HrviewerError
        If others are given than the model was loaded with.
    """
    if not isinstance(model, Model):
        return device, precision
    for name, given, default, own in (
        ("device", device, "auto", model.device),
        ("precision", precision, "float32", model.precision),
    ):
        if given not in (default, own):
            raise ParameterError(
                f"the model is loaded with {name} {own}, not {given}: load it with {given}"
            )
    return model.device, model.precision
