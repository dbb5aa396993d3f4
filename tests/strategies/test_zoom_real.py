"""`zoom` end to end with published networks, with a scout and without."""

from __future__ import annotations

import pytest

from hrviewer.models import installed_bundles
from hrviewer.runs import run


def check(tmp_path, image, model, region, scouted, **params):
    """Run `patches` and `zoom` on a region and compare their estimates and costs."""
    runs = {
        name: run(image, model, name, region=region, out=tmp_path / f"{name}.run.zarr", **more)
        for name, more in (("patches", {}), ("zoom", params))
    }
    whole, made = runs["patches"], runs["zoom"]
    main = made.patches.query("role == 'main'")
    assert made.complete
    assert len(main) >= 3
    assert made.patches.role.iloc[0] == "scout"
    assert made.cost["flops"] < whole.cost["flops"]
    low, high = made.estimate["ci95"]
    assert 0 <= low <= made.estimate["value"] <= high
    assert low <= whole.estimate["value"] <= high
    assert scouted != any("used instead" in note for note in made.header["notes"])


def test_mcnn_on_a_photo(tmp_path, shared):
    image = shared / "data" / "aerial" / "OSBS_029.tif"
    network = shared / "models" / "mcnn_shtechB_110.onnx"
    check(tmp_path, image, network, (0, 0, 384, 384), False, budget="5GFLOP", method="sampling")


@pytest.mark.slow
def test_nuclei_on_a_slide(tmp_path, shared):
    if "nuclei" not in installed_bundles():
        pytest.skip("hrviewer-histology is not installed")
    image = shared / "data" / "wsi" / "CMU-1-Small-Region.svs"
    check(tmp_path, image, "nuclei", (512, 512, 768, 768), True, budget="4GFLOP", halo=32)
