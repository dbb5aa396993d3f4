"""Any order of stops, damage, other writers and resumption: the same bits at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from toys import picture, toy_bundle

from hrviewer.claims import claim_folder
from hrviewer.engine import RunControl
from hrviewer.errors import ClaimedError, HrviewerError, RunError
from hrviewer.runs import Run, run

pytestmark = pytest.mark.slow

IMAGE = picture(400, 400)
whole: list[Run] = []


def reference(folder: Path) -> Run:
    if not whole:
        whole.append(run(IMAGE, toy_bundle(), tile=16, out=folder / "w.run.zarr", cache="off"))
        _ = whole[0].output, whole[0].patches
        whole[0].maps_read = np.asarray(whole[0].output)  # type: ignore[attr-defined]
    return whole[0]


class RunStates(RuleBasedStateMachine):
    """A run folder and what may happen to it."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.out = self.folder / "a.run.zarr"
        self.reference = reference(self.folder)

    @property
    def journal(self) -> list[Path]:
        return sorted((self.out / "journal").glob("*.results"))

    def start(self, requests: int | None) -> Run:
        """Start or resume, and stop after some requests."""
        control, before = RunControl(), len(self.journal)

        def stop(event: object) -> None:
            if requests is not None and len(self.journal) >= before + requests:
                control.stop()

        return run(
            IMAGE, toy_bundle(), tile=16, out=self.out, cache="off", control=control,
            on_event=stop, resume=(self.out / "run.json").exists(),
        )  # fmt: skip

    @rule(requests=st.sampled_from([1, 2, None]))
    def run_on(self, requests: int | None) -> None:
        found = self.start(requests)
        if found.complete:
            assert found.estimate == self.reference.estimate
            np.testing.assert_array_equal(found.output, self.reference.maps_read)
            assert not (self.out / "journal").exists()

    @rule(which=st.integers(0, 3), how=st.sampled_from(["cut", "flip", "remove"]))
    def damage_journal(self, which: int, how: str) -> None:
        files = self.journal
        if not files:
            return
        file = files[which % len(files)]
        data = bytearray(file.read_bytes())
        if how == "remove":
            file.unlink()
            return
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data[: len(data) // 2] if how == "cut" else data))

    @rule()
    def start_without_resuming(self) -> None:
        if (self.out / "run.json").exists():
            with pytest.raises(RunError, match="--resume"):
                run(IMAGE, toy_bundle(), tile=16, out=self.out, cache="off")

    @rule()
    def change_settings(self) -> None:
        if (self.out / "run.json").exists():
            with pytest.raises(HrviewerError):
                run(IMAGE, toy_bundle(), tile=32, out=self.out, cache="off", resume=True)

    @rule()
    def start_beside_another(self) -> None:
        if (self.out / "run.json").exists() and Run(self.out).complete:
            return  # it is read without a claim
        with claim_folder(self.out), pytest.raises(ClaimedError):
            run(
                IMAGE, toy_bundle(), tile=16, out=self.out, cache="off",
                resume=(self.out / "run.json").exists(),
            )  # fmt: skip

    @invariant()
    def nothing_is_left_over(self) -> None:
        if hasattr(self, "out") and self.out.exists():
            assert not [p for p in self.out.rglob("*") if p.suffix == ".new" or "claim" in p.name]

    def teardown(self) -> None:
        if hasattr(self, "out"):
            self.run_on(None)
            assert Run(self.out).complete
            shutil.rmtree(self.folder)


RunStates.TestCase.settings = settings(
    max_examples=6, stateful_step_count=6, deadline=None, derandomize=True, database=None
)
TestRunStates = RunStates.TestCase
