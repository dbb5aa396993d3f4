"""Model bundles: the networks for one task, by role, opened by name, folder or file.

Opening a bundle reads no weights and imports no back end.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrviewer.errors import ModelError, short_message, validation_error
from hrviewer.models import loaders
from hrviewer.models.builtin_saliency import builtin
from hrviewer.models.card import ModelCard
from hrviewer.models.formats import open_model
from hrviewer.models.json_file import read_json
from hrviewer.models.network import Floats, Network
from hrviewer.models.network_cache import load_network, release_networks
from hrviewer.paths import models_folder

__all__ = [
    "ENTRY_POINT_GROUP",
    "CombinedBundle",
    "InstalledBundle",
    "ModelBundle",
    "UserBundle",
    "installed_bundles",
    "no_model_error",
    "open_bundle",
]

ENTRY_POINT_GROUP = "hrviewer.models"
"""Entry points of bundle folders, or of functions that return one."""

ROLES = ("main", "scout", "scanner", "encoder", "head", "resizer", "transformer", "policy")
"""Roles of the networks in a bundle."""

SUBSTITUTES = "scanner", "transformer"
"""Roles that predict what ``main`` does."""

PACKAGES = {"nuclei": "hrviewer[histology]", "crowd": "hrviewer[crowd]"}
"""Packages of models, by the name of the model."""


class _BundleRole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    weights: str
    card: dict[str, object]


class _BundleIndex(BaseModel):
    """Contents of ``bundle.json``."""

    model_config = ConfigDict(extra="forbid")
    name: str
    title: str = ""
    description: str = ""
    roles: dict[str, _BundleRole] = Field(min_length=1)


class ModelBundle:
    """The networks for one task.

    Attributes
    ----------
    name, title, description : str
        A short identifier, and texts for the user.
    roles : Mapping[str, ModelCard]
        The card of each role: ``main``, ``scout``, ``scanner``, ``encoder``, ``head``,
        ``transformer``, ``policy``, ``resizer``.
    trust : bool
        Whether weights that can run code when opened are allowed.
    source : str or None
        What `open_bundle` was given; None of a bundle that was made otherwise.
    """

    source: str | None = None

    def __init__(
        self,
        name: str,
        networks: Mapping[str, tuple[Path, ModelCard]],
        title: str = "",
        description: str = "",
        trust: bool = False,
    ) -> None:
        self.trust = trust
        self.name, self.title, self.description = name, title or name, description
        self.roles: Mapping[str, ModelCard] = MappingProxyType(
            {r: c for r, (_, c) in networks.items()}
        )
        self._weights = {role: path for role, (path, _) in networks.items()}
        self._loaded: dict[tuple[str, str, str], Network] = {}
        self._calibrated: WeakSet[Network] = WeakSet()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ModelBundle {self.name}: {', '.join(self.roles)}>"

    @property
    def card(self) -> ModelCard:
        """The card of the main network, or of the first if there is none."""
        return self.roles["main" if "main" in self.roles else next(iter(self.roles))]

    def load(
        self,
        role: str = "main",
        device: str = "auto",
        threads: int | None = None,
        precision: str = "float32",
        samples: Sequence[Floats] = (),
    ) -> Network:
        """Return the network of a role, loaded once per process, device and precision.

        Parameters
        ----------
        role
            One of `roles`, or a built-in one (``@gradient``).
        device
            ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        threads
            Number of threads on a CPU, set when the network is first loaded; all cores by default.
        precision
            ``float32``, ``bfloat16`` or ``int8``; an int8 network is calibrated on one image.
        samples
            Calibration inputs; see `hrviewer.models.loaders.load`.

        Raises
        ------
        ModelError
            If the bundle has no such role, or as in `hrviewer.models.loaders.load`.
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
                network = load_network(
                    weights, card, device, threads, precision, samples, self.trust
                )
                self._calibrated.add(network)
                return network
            key = role, device, precision
            if key not in self._loaded:
                self._loaded[key] = load_network(
                    weights, card, device, threads, precision, trust=self.trust
                )
            return self._loaded[key]

    def release(self) -> None:
        """Release the loaded networks; a later `load` loads them again."""
        with self._lock:
            release_networks([*self._loaded.values(), *self._calibrated])
            self._loaded.clear()
            self._calibrated.clear()

    def weights(self, role: str) -> Path:
        """Return the weights file of a role; raise `ModelError` if there is no such role."""
        self._require_role(role)
        return self._weights[role]

    def _require_role(self, role: str) -> None:
        if role not in self.roles:
            raise ModelError(
                f"the model {self.name} has no role {role!r}, only {', '.join(self.roles)}: "
                "choose another model, or a strategy that does not need it"
            )

    @classmethod
    def read(cls, folder: Path, trust: bool = False) -> ModelBundle:
        """Return the bundle in a folder; raise `ModelError` if ``bundle.json`` is invalid."""
        file = folder / "bundle.json"
        if not file.is_file():
            raise ModelError(f"{folder} is not a model bundle: it contains no bundle.json")
        try:
            index = _BundleIndex.model_validate(read_json(file))
        except ValidationError as error:
            raise validation_error(error, file, advice="correct it", kind=ModelError) from None
        networks = {}
        for role, entry in index.roles.items():
            if role.startswith("@"):
                raise ModelError(
                    f"{file}: {role}: names with @ are reserved for built-in roles; choose another"
                )
            weights = (folder / entry.weights).resolve()
            if not weights.is_relative_to(folder.resolve()):
                raise ModelError(
                    f"{file}: roles.{role}.weights lie outside the bundle; move them into it"
                )
            loaders.check_weights_format(weights, trust)
            networks[role] = weights, ModelCard.from_dict(entry.card, f"{file}, roles.{role}.card")
        return cls(index.name, networks, index.title, index.description, trust)


@dataclass(frozen=True)
class InstalledBundle:
    """A bundle of an installed plug-in, which is not imported before `load`."""

    entry: EntryPoint

    @property
    def name(self) -> str:
        """Name for `open_bundle`."""
        return self.entry.name

    @property
    def folder(self) -> Path:
        """Folder of the bundle; raises `ModelError` if the plug-in is broken."""
        try:
            folder = self.entry.load()
            return Path(folder() if callable(folder) else folder)
        except Exception as error:
            raise ModelError(
                f"the model {self.name} ({self.entry.value}) cannot be imported "
                f"({short_message(error)}): reinstall its plug-in"
            ) from error

    def load(self) -> ModelBundle:
        """Return the bundle; raise `ModelError` if the plug-in is broken."""
        return ModelBundle.read(self.folder)


@dataclass(frozen=True)
class UserBundle:
    """A bundle in the user's folder of models, as ``hrviewer distill`` writes it."""

    name: str
    folder: Path

    def load(self) -> ModelBundle:
        """Return the bundle; raise `ModelError` if its ``bundle.json`` is invalid."""
        return ModelBundle.read(self.folder)


def installed_bundles() -> dict[str, InstalledBundle | UserBundle]:
    """Return the bundles of installed plug-ins and of the user's folder by name, sorted.

    A plug-in's comes before one of the user's of the same name.
    """
    found: dict[str, InstalledBundle | UserBundle] = {
        file.parent.name: UserBundle(file.parent.name, file.parent)
        for file in models_folder().glob("*/bundle.json")
    }
    found |= {entry.name: InstalledBundle(entry) for entry in entry_points(group=ENTRY_POINT_GROUP)}
    return dict(sorted(found.items()))


def open_bundle(spec: str | Path, trust: bool = False) -> ModelBundle:
    """Open a model bundle.

    Parameters
    ----------
    spec
        Name of an installed bundle, or of one in the user's folder of models; a folder with
        ``bundle.json``; a weights file with its card, ``NAME.json``, in the same folder; or a file
        or folder of another tool that describes its model (`hrviewer.models.formats`). A single
        model is a bundle with only ``main``, or ``main`` and ``encoder`` if its task is embedding.
        ``main=a.onnx,scout=b.onnx`` gives single models roles. Several bundles joined by ``+`` are
        combined: each adds the roles that those before it lack. A head takes the embeddings of its
        own bundle's encoder, or of a later one; an embedding network becomes ``main`` only if there
        is no other.
    trust
        Whether weights that can run code when opened (TorchScript, torch.export) are allowed.

    Raises
    ------
    ModelError
        If there is no such bundle, its description is invalid, several have a role ``main``, a
        scanner or transformer predicts something else than ``main``, or its weights are pickles.
    """
    bundle = _open_bundle(spec, trust)
    check_substitutes(bundle.roles)
    path = Path(spec).expanduser()
    is_file = path.exists() and str(spec) not in installed_bundles()
    bundle.source = str(path.absolute() if is_file else spec)
    return bundle


def _open_bundle(spec: str | Path, trust: bool) -> ModelBundle:
    installed = installed_bundles()
    if isinstance(spec, str) and spec in installed:
        return installed[spec].load()
    path = Path(spec).expanduser()
    if not path.exists():
        if roles := parse_roles(str(spec)):
            return _bundle_of_roles(roles, trust)
        if "+" in str(spec):
            return CombinedBundle([open_bundle(part, trust) for part in str(spec).split("+")])
    if (path / "bundle.json").is_file():
        return ModelBundle.read(path, trust)
    known = loaders.WEIGHTS_FORMATS + loaders.CODE_FORMATS
    if not path.is_dir() and (
        not path.suffix or (not path.exists() and path.suffix.lower() not in known)
    ):
        names = ", ".join(installed) or "none"
        package = PACKAGES.get(str(spec))
        advice = (
            f'pip install "{package}"'
            if package
            else "choose one, or give the file or folder of a model"
        )
        raise ModelError(f"no model is named {str(spec)!r} (installed: {names}): {advice}")
    if path.suffix.lower() in loaders.CODE_FORMATS:
        loaders.check_weights_format(path, trust)
    weights, card = open_model(path)
    loaders.check_weights_format(weights, trust)
    roles_of_it = ["main", "encoder"] if card.task == "embedding" else ["main"]
    return ModelBundle(
        card.name, dict.fromkeys(roles_of_it, (weights, card)), card.title, trust=trust
    )


def check_substitutes(roles: Mapping[str, ModelCard]) -> None:
    """Raise `ModelError` if a network in the place of ``main`` predicts something else."""
    main = roles.get("main")
    for role in SUBSTITUTES:
        card = roles.get(role)
        if main is None or card is None:
            continue
        alike = card.task == main.task or (card.counts and main.counts)
        several = len(main.classes) > 1
        if not alike or (card.classes != main.classes if several else len(card.classes) > 1):
            raise ModelError(
                f"the {role} {card.name} predicts {card.task} of {', '.join(card.classes)}, and "
                f"main, {main.name}, {main.task} of {', '.join(main.classes)}: give a {role} for "
                "the same task and classes (hrviewer distill makes one)"
            )


def parse_roles(spec: str) -> list[tuple[str, str]]:
    """Return the roles and models of ``main=a.onnx,scout=b.onnx``; none if it is something else."""
    parts = [part.partition("=") for part in spec.split(",")]
    if not all(equals and role.isidentifier() for role, equals, _ in parts):
        return []
    return [(role, model) for role, _, model in parts]


def _bundle_of_roles(roles: Sequence[tuple[str, str]], trust: bool) -> ModelBundle:
    """Return the bundle of single models with roles."""
    networks: dict[str, tuple[Path, ModelCard]] = {}
    bundles = []
    for role, model in roles:
        bundle = open_bundle(model, trust)
        taken = role if role in bundle.roles else next(iter(bundle.roles))
        if role in networks:
            raise ModelError(f"two models have the role {role}: give each role once")
        if role not in ROLES:
            raise ModelError(f"no role is named {role!r}: choose one of {', '.join(ROLES)}")
        networks[role] = bundle.weights(taken), bundle.roles[taken]
        bundles.append(bundle)
    return ModelBundle("+".join(bundle.name for bundle in bundles), networks, trust=trust)


def no_model_error() -> ModelError:
    """Return the error for a missing model, with those installed and the packages of others."""
    installed = list(installed_bundles())
    missing = {name: package for name, package in PACKAGES.items() if name not in installed}
    choices = [f"give one of the installed models ({', '.join(installed)})"] if installed else []
    choices += [f'pip install "{package}" for {name}' for name, package in missing.items()]
    choices.append("give the file or folder of a model")
    return ModelError(f"no model is given: {', or '.join(choices)}")


class CombinedBundle(ModelBundle):
    """The roles of several bundles combined; networks that one has loaded are shared.

    Parameters
    ----------
    bundles : sequence of ModelBundle
        The first bundle with a role provides it; see `open_bundle`.

    Attributes
    ----------
    bundles : tuple of ModelBundle
        The same.
    """

    def __init__(self, bundles: Sequence[ModelBundle]) -> None:
        self.bundles = tuple(bundles)
        self._owners = role_owners(bundles)
        for bundle in bundles:
            if bundle not in self._owners.values():
                roles = " and ".join(bundle.roles)
                raise ModelError(
                    f"{bundle.name} adds nothing: its {roles} is left out, since a model before it "
                    "has that role; give it another one, as main=A,scout=B"
                )
        name = "+".join(bundle.name for bundle in bundles)
        networks = {
            role: (bundle._weights[role], bundle.roles[role])
            for role, bundle in self._owners.items()
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
        if precision == "float32":  # custom bundles need not know other precisions
            return self._owners[role].load(role, device, threads)
        extra = [samples] if samples else []
        return self._owners[role].load(role, device, threads, precision, *extra)

    def release(self) -> None:
        """Release the loaded networks of all bundles."""
        for bundle in self.bundles:
            bundle.release()


def role_owners(bundles: Sequence[ModelBundle]) -> dict[str, ModelBundle]:
    """Return the bundle that provides each role."""
    found: dict[str, ModelBundle] = {}
    # A network of embeddings is `main` only where no other bundle makes predictions.
    predicts = any(p.roles["main"].task != "embedding" for p in bundles if "main" in p.roles)
    for bundle in bundles:
        # A head after an encoder takes the embeddings of another one.
        has_encoder = "encoder" in found
        for role, card in bundle.roles.items():
            encodes = role == "main" and card.task == "embedding"
            if (encodes and predicts) or (role == "head" and has_encoder):
                continue
            found.setdefault(role, bundle)
    return found
