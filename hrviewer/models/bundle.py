"""Packs: the networks for one job, by role, found by name, by folder or by file.

A pack is opened without reading weights, and without importing what runs them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, ValidationError

from hrviewer.errors import HrviewerError, ModelError, short_message, validation_error
from hrviewer.models import loaders
from hrviewer.models.builtin_saliency import builtin
from hrviewer.models.card import ModelCard, read_json
from hrviewer.models.network import Floats, Network

__all__ = [
    "ENTRY_POINT_GROUP",
    "CombinedBundle",
    "InstalledBundle",
    "ModelBundle",
    "installed_bundles",
    "open_bundle",
]

ENTRY_POINT_GROUP = "hrviewer.models"
"""Entry points whose value is a pack's folder, or a function that returns it."""


class _BundleRole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    weights: str
    card: dict[str, object]


class _BundleIndex(BaseModel):
    """What ``bundle.json`` holds."""

    model_config = ConfigDict(extra="forbid")
    name: str
    title: str = ""
    description: str = ""
    roles: dict[str, _BundleRole]


class ModelBundle:
    """The networks for one job.

    Attributes
    ----------
    name, title, description : str
        A short identifier, and what a person reads.
    roles : Mapping[str, Card]
        What it has: ``main``, ``scout``, ``scanner``, ``encoder``, ``head``, ``transformer``.
    """

    def __init__(
        self,
        name: str,
        networks: Mapping[str, tuple[Path, ModelCard]],
        title: str = "",
        description: str = "",
    ) -> None:
        self.name, self.title, self.description = name, title or name, description
        self.roles: Mapping[str, ModelCard] = MappingProxyType(
            {r: c for r, (_, c) in networks.items()}
        )
        self._weights = {role: path for role, (path, _) in networks.items()}
        self._loaded: dict[tuple[str, str, str], Network] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Pack {self.name}: {', '.join(self.roles)}>"

    def load(
        self,
        role: str = "main",
        device: str = "auto",
        threads: int | None = None,
        precision: str = "float32",
        samples: Sequence[Floats] = (),
    ) -> Network:
        """Return a role's network, loaded once for each device and precision.

        Parameters
        ----------
        role
            One of `roles`, or a built-in one (``@gradient``).
        device
            ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        threads
            On a CPU, when it is first loaded; by default all cores.
        precision
            ``float32``, ``bfloat16`` or ``int8``; what is in the last is not kept here, since it
            belongs to the image that it was calibrated on.
        samples
            Inputs to calibrate on, see `hrviewer.models.loaders.load`.

        Raises
        ------
        UserError
            Where the pack has no such role, or as `hrviewer.models.loaders.load` does.
        """
        if role.startswith("@"):
            return builtin(role)
        self._require_role(role)
        return self._load(role, device, threads, precision, samples)

    def _load(
        self,
        role: str,
        device: str,
        threads: int | None,
        precision: str,
        samples: Sequence[Floats],
    ) -> Network:
        with self._lock:
            weights, card = self._weights[role], self.roles[role]
            if precision == "int8":
                return loaders.load(weights, card, device, threads, precision, samples)
            key = role, device, precision
            if key not in self._loaded:
                self._loaded[key] = loaders.load(weights, card, device, threads, precision)
            return self._loaded[key]

    def weights(self, role: str) -> Path:
        """Return the file of a role's network; `UserError` where the pack has no such role."""
        self._require_role(role)
        return self._weights[role]

    def _require_role(self, role: str) -> None:
        if role not in self.roles:
            raise HrviewerError(
                f"the pack {self.name} has no {role!r}, only {', '.join(self.roles)}: "
                "choose another pack, or a strategy that does without"
            )

    @classmethod
    def read(cls, folder: Path) -> ModelBundle:
        """Return the pack in a folder; `UserError` where its ``bundle.json`` is wrong."""
        file = folder / "bundle.json"
        if not file.is_file():
            raise HrviewerError(f"{folder} is no pack: there is no bundle.json in it")
        try:
            index = _BundleIndex.model_validate(read_json(file))
        except ValidationError as error:
            raise validation_error(error, file, advice="correct it", kind=ModelError) from None
        networks = {}
        for role, entry in index.roles.items():
            if role.startswith("@"):
                raise HrviewerError(
                    f"{file}: {role}: roles with @ are built in; choose another name"
                )
            weights = (folder / entry.weights).resolve()
            if not weights.is_relative_to(folder.resolve()):
                raise HrviewerError(
                    f"{file}: roles.{role}.weights lie outside the pack; move them in"
                )
            loaders.check_weights_format(weights)
            networks[role] = weights, ModelCard.from_dict(entry.card, f"{file}, roles.{role}.card")
        return cls(index.name, networks, index.title, index.description)


@dataclass(frozen=True)
class InstalledBundle:
    """A pack that an installed plug-in offers; nothing of it is imported before `load`."""

    entry: EntryPoint

    @property
    def name(self) -> str:
        """What `open_pack` takes."""
        return self.entry.name

    @property
    def folder(self) -> Path:
        """Where it lies; `UserError` where the plug-in is broken."""
        try:
            folder = self.entry.load()
            return Path(folder() if callable(folder) else folder)
        except Exception as error:
            raise HrviewerError(
                f"the pack {self.name} ({self.entry.value}) does not import "
                f"({short_message(error)}): install its plug-in again"
            ) from error

    def load(self) -> ModelBundle:
        """Return the pack; `UserError` where the plug-in is broken."""
        return ModelBundle.read(self.folder)


def installed_bundles() -> dict[str, InstalledBundle]:
    """Return the packs of installed plug-ins, by name, in order."""
    return {
        entry.name: InstalledBundle(entry)
        for entry in sorted(entry_points(group=ENTRY_POINT_GROUP))
    }


def open_bundle(spec: str | Path) -> ModelBundle:
    """Open a pack.

    Parameters
    ----------
    spec
        An installed pack's name; a folder with ``bundle.json``; or an ``.onnx`` or ``.safetensors``
        file with its card, ``NAME.json``, beside it: a pack with only ``main``, or of an
        embedding with ``main`` and ``encoder``. Several of these joined by ``+`` are one pack:
        each adds the roles that those before it lack. A head reads the codes of its own pack's
        encoder, or of one that comes after it; an embedding is ``main`` if nothing else is.

    Raises
    ------
    UserError
        Where there is no such pack, its description is wrong, or its weights are pickles.
    """
    installed = installed_bundles()
    if isinstance(spec, str) and spec in installed:
        return installed[spec].load()
    path = Path(spec).expanduser()
    if "+" in str(spec) and not path.exists():
        return CombinedBundle([open_bundle(part) for part in str(spec).split("+")])
    if path.is_dir():
        return ModelBundle.read(path)
    if not path.suffix or (
        not path.exists() and path.suffix.lower() not in loaders.WEIGHTS_FORMATS
    ):
        known = ", ".join(installed) or "none"
        raise HrviewerError(
            f"no pack is named {str(spec)!r} (installed: {known}): choose one, "
            "or give a folder with bundle.json, an .onnx or a .safetensors file"
        )
    loaders.check_weights_format(path)
    card = ModelCard.read(path.with_suffix(".json"))
    roles = ["main", "encoder"] if card.task == "embedding" else ["main"]
    return ModelBundle(card.name, dict.fromkeys(roles, (path, card)), card.title)


class CombinedBundle(ModelBundle):
    """One pack of the roles of several: what one of them has loaded is not loaded again.

    Parameters
    ----------
    bundles : sequence of Pack
        The first that has a role gives it; see `open_pack`.

    Attributes
    ----------
    bundles : tuple of Pack
        The same.
    """

    def __init__(self, bundles: Sequence[ModelBundle]) -> None:
        self.bundles = tuple(bundles)
        self._owners = role_owners(bundles)
        name = "+".join(pack.name for pack in bundles)
        networks = {
            role: (pack._weights[role], pack.roles[role]) for role, pack in self._owners.items()
        }
        super().__init__(name, networks, description=bundles[0].description)

    def _load(
        self,
        role: str,
        device: str,
        threads: int | None,
        precision: str,
        samples: Sequence[Floats],
    ) -> Network:
        if precision == "float32":  # a pack of one's own need not know of others
            return self._owners[role].load(role, device, threads)
        more = [samples] if samples else []
        return self._owners[role].load(role, device, threads, precision, *more)


def role_owners(bundles: Sequence[ModelBundle]) -> dict[str, ModelBundle]:
    """Return which of several packs gives each role."""
    found: dict[str, ModelBundle] = {}
    # What only encodes answers nothing, where another one does.
    answers = any(p.roles["main"].task != "embedding" for p in bundles if "main" in p.roles)
    for pack in bundles:
        read = "encoder" in found  # a head that comes after an encoder reads another one's codes
        for role, card in pack.roles.items():
            encodes = role == "main" and card.task == "embedding"
            if (encodes and answers) or (role == "head" and read):
                continue
            found.setdefault(role, pack)
    return found
