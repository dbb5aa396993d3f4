"""Packages of the BioImage Model Zoo: ``rdf.yaml`` in a folder or a zip file.

Versions 0.4 and 0.5 of the specification. Of several weights ONNX is preferred; TorchScript can run
code and is loaded only from a trusted source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError
from hrviewer.models.formats.base import MAX_DESCRIPTION, CardDraft, ModelFormat
from hrviewer.models.formats.package import is_package, unpack

__all__ = ["BioimageioFormat"]

NAMES = "rdf.yaml", "bioimageio.yaml"
KINDS = "onnx", "torchscript"
IMAGE_WIDE = "scale_range", "zero_mean_unit_variance", "scale_mean_variance"
"""Steps whose numbers are the percentiles, or mean and deviation, of each image."""


class BioimageioFormat(ModelFormat):
    """A package of the BioImage Model Zoo, for images of two dimensions."""

    id = "bioimageio"
    title = "bioimage.io"
    priority = 10

    def supports(self, path: Path) -> bool:
        """Whether it is ``rdf.yaml``, or a folder or zip file with it."""
        if path.is_dir():
            return any((path / name).is_file() for name in NAMES)
        return path.name in NAMES or is_package(path, NAMES)

    def draft(self, path: Path) -> CardDraft:
        """Return the card of the description."""
        if path.is_file() and path.name not in NAMES:
            folder = unpack(path)
        else:
            folder = path if path.is_dir() else path.parent
        about = _read_yaml(next(folder / name for name in NAMES if (folder / name).is_file()))
        inputs, outputs = about.get("inputs") or [], about.get("outputs") or []
        if len(inputs) != 1:
            raise ModelError(f"{path} takes {len(inputs)} inputs: choose a model with one")
        weights = _weights(path, folder, about)
        axes = _axes(inputs[0])
        if sum(name in "yxz" for name in axes) != 2 or "z" in axes:
            raise ModelError(f"{path} takes images of the axes {''.join(axes)}: choose one of y, x")
        channels = axes.get("c", (1, 0))[0]
        smallest, step = axes["y"]
        tile = smallest if not step else smallest + max(0, -(-(256 - smallest) // step)) * step
        fields: dict[str, Any] = {
            "name": path.parent.name if path.name in NAMES else path.stem,
            "title": str(about.get("name", "")),
            "input": {
                "channels": {1: "gray", 3: "rgb"}.get(channels, channels),
                **_preprocessing(path, inputs[0]),
                "tile": tile,
                "multiple_of": step or 1,
                "fixed": not step,
            },
            "licence": str(about.get("license", "")),
            "citation": "; ".join(str(c.get("text", "")) for c in about.get("cite") or []),
        }
        if step and tile % step:
            # Sides are a least size plus a multiple, which is one of that multiple only by chance.
            fields["input"] |= {"tile": smallest, "multiple_of": 1, "fixed": True}
        scale = _along_y(inputs[0], list(axes), "scale", 1.0)
        output = _output(path, outputs[:1], fields["input"], scale)
        return CardDraft(weights, fields | output)


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    if file.stat().st_size > MAX_DESCRIPTION:
        raise ModelError(f"{file} is too large for a description of a model: check the file")
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"{file} cannot be read as YAML ({type(error).__name__}): download it again"
        ) from None
    if not isinstance(found, dict) or found.get("type") != "model":
        raise ModelError(f"{file} describes no model: choose a package of the type model")
    return found


def _weights(path: Path, folder: Path, about: dict[str, Any]) -> Path:
    """Return the weights that can be loaded; raise `ModelError` if there are none."""
    entries = about.get("weights") or {}
    for kind in KINDS:
        source = str((entries.get(kind) or {}).get("source", ""))
        name = source.rsplit("/", 1)[-1] if "://" in source else source
        file = (folder / name).resolve()
        if name and file.is_file() and file.is_relative_to(folder.resolve()):
            return file
    kinds = ", ".join(entries) or "no weights"
    raise ModelError(
        f"{path} has {kinds}, but none in ONNX or TorchScript beside its description: choose "
        "another version of the model, or convert it with `bioimageio.core`"
    )


def _axes(tensor: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the least size of each axis and its step; 0 where it is fixed."""
    axes = tensor.get("axes") or ""
    if isinstance(axes, str):
        shape = tensor.get("shape") or []
        least, step = (
            (shape.get("min", []), shape.get("step", []))
            if isinstance(shape, dict)
            else (shape, [0] * len(shape))
        )
        return {a: (int(m), int(s)) for a, m, s in zip(axes, least, step, strict=False)}
    found: dict[str, tuple[int, int]] = {}
    for axis in axes:
        name = str(axis.get("id") or axis.get("type"))
        name = {"batch": "b", "channel": "c"}.get(name, name)
        size = axis.get("size", len(axis.get("channel_names") or [0]))
        if isinstance(size, dict):
            found[name] = int(size.get("min", 1)), int(size.get("step", 0))
        else:
            found[name] = int(size), 0
    return found


def _preprocessing(path: Path, tensor: dict[str, Any]) -> dict[str, Any]:
    """Return scale, mean and standard deviation; raise `ModelError` for other steps."""
    gain, offset = np.ones(1), np.zeros(1)  # of 0-255: x · gain + offset
    for step in tensor.get("preprocessing") or []:
        name = step.get("name") or step.get("id")
        kwargs = step.get("kwargs") or {}
        fixed = name == "fixed_zero_mean_unit_variance" or kwargs.get("mode") == "fixed"
        if name == "scale_linear":
            times = _numbers(kwargs.get("gain", 1))
            gain, offset = gain * times, offset * times + _numbers(kwargs.get("offset", 0))
        elif fixed and "zero_mean" in str(name):
            std = _numbers(kwargs.get("std", 1))
            gain, offset = gain / std, (offset - _numbers(kwargs.get("mean", 0))) / std
        elif name != "ensure_dtype":
            cause = (
                "which depends on the whole image"
                if name in IMAGE_WIDE
                else "which is not applied here"
            )
            raise ModelError(
                f"{path} prepares its inputs by {name}, {cause}: choose a model with fixed "
                "normalisation, or export one that normalises in its graph"
            )
    return {"mean": (-offset / gain).tolist(), "std": (1 / gain).tolist()}


def _numbers(value: Any) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(value, float))


def _output(
    path: Path, outputs: list[Any], source: dict[str, Any], source_scale: float
) -> dict[str, Any]:
    """Return task and output of the card: a map of the first output.

    In version 0.5 the axes of inputs and outputs have scales: sides of a pixel.
    """
    if not outputs:
        raise ModelError(f"{path} describes no output: choose another model")
    tensor = outputs[0]
    axes = tensor.get("axes") or ""
    names = (
        list(axes) if isinstance(axes, str) else [str(a.get("id") or a.get("type")) for a in axes]
    )
    shape = tensor.get("shape") or {}
    scales = shape.get("scale") if isinstance(shape, dict) else None
    factor = float(scales[names.index("y")]) if scales and "y" in names else 1.0
    if isinstance(axes, list) and "y" in names:
        factor = source_scale / float(axes[names.index("y")].get("scale", 1.0))
    classes = _channel_names(tensor, names)
    steps = {s.get("name") or s.get("id") for s in tensor.get("postprocessing") or []}
    activation = next((name for name in ("sigmoid", "softmax") if name in steps), "none")
    per_tile = "y" not in names
    stride = source["tile"] if per_tile else (round(1 / factor) if factor <= 1 else 1 / factor)
    output = {"stride": stride, "classes": classes, "activation": activation}
    if halo := _along_y(tensor, names, "halo"):
        output["halo"] = round(halo * stride)
    offset = shape.get("offset") if isinstance(shape, dict) else None
    if offset and "y" in names and offset[names.index("y")] < 0:
        output["margin"] = round(-float(offset[names.index("y")]))
    return {"task": "classification" if per_tile else "segmentation", "output": output}


def _along_y(tensor: dict[str, Any], names: list[str], field: str, default: float = 0.0) -> float:
    """Return a field of the axis y, in either version of the specification."""
    if "y" not in names:
        return default
    place, axes = names.index("y"), tensor["axes"]
    if isinstance(axes, list):
        return float(axes[place].get(field, default))
    return float((tensor.get(field) or [default] * len(names))[place])


def _channel_names(tensor: dict[str, Any], names: list[str]) -> list[str]:
    """Return the names of the output's channels."""
    axes = tensor.get("axes")
    if isinstance(axes, list):
        for axis in axes:
            if axis.get("type") == "channel":
                return [str(name) for name in axis.get("channel_names") or ["foreground"]]
    described = tensor.get("data_description") or {}
    if isinstance(described, dict) and isinstance(described.get("values"), list):
        return [str(value) for value in described["values"]]
    shape = tensor.get("shape")
    place = names.index("c") if "c" in names else None
    if place is not None and isinstance(shape, list) and isinstance(shape[place], int):
        return [f"class {i}" for i in range(shape[place])]
    if place is not None and isinstance(shape, dict) and shape.get("offset"):
        k = max(1, round(2 * float(shape["offset"][place])))
        return [f"class {i}" for i in range(k)]
    return ["foreground"]
