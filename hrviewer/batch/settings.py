"""What is the same for all images of a batch."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hrviewer.engine import Budget
from hrviewer.runs.settings import parse_params
from hrviewer.strategies import get_strategy

__all__ = ["STOP_FILE", "BatchSettings", "EngineSettings"]

STOP_FILE = "stopping"
"""File in a batch's folder while it stops: also for workers that started after the others were
asked to stop.
"""


class EngineSettings(BaseModel):
    """How networks run: the same on every worker, so that any worker can resume any run.

    Answers equal those of a single run with the same settings bit for bit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    """Version of hrviewer."""
    device: str
    """Kind of device, ``cpu``, ``cuda`` or ``mps``."""
    backend: str
    """Back end of the main network."""
    cores: int
    """Cores that the networks of a worker use."""
    streams: int
    """Inputs that run at once."""
    batch: int
    """Inputs per call."""


class BatchSettings(BaseModel):
    """The settings of a batch.

    Parameters
    ----------
    model : str
        Name, file or folder of a model.
    strategy : str
        A strategy's id.
    params : dict
        Parameters of the strategy.
    budget, seed, region, tissue, truth, precision, cache
        As `hrviewer.run` takes them; an image's own entry comes first.
    trust : bool
        Whether model files that can run code are opened.
    exports : tuple of str
        Formats in which every run is exported.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    trust: bool = False
    strategy: str = "patches"
    params: dict[str, Any] = Field(default_factory=dict)
    budget: str | None = None
    seed: int = Field(default=0, ge=0)
    region: str | None = None
    tissue: str = "off"
    truth: str | None = None
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    cache: Literal["use", "off"] = "use"
    exports: tuple[str, ...] = ()

    def checked(self) -> BatchSettings:
        """Return the settings with parameters as runs record them.

        Raises
        ------
        HrviewerError
            If there is no such strategy, parameter or export format, or the budget is none.
        """
        from hrviewer.io import get_writer

        params = parse_params(get_strategy(self.strategy), self.params)
        if self.budget is not None:
            Budget.parse(self.budget)
        for name in self.exports:
            get_writer(name)
        return self.model_copy(update={"params": params.model_dump(exclude_defaults=True)})

    @property
    def digest(self) -> str:
        """What identifies the settings, and the rows that they give."""
        given = self.model_dump_json(exclude={"exports", "cache"})
        return hashlib.sha256(given.encode()).hexdigest()[:12]
