"""Non-uniform downsampling from the notebook: published models, real images, prior maps."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Bright, ToyBundle, picture

import hrviewer
from hrviewer.errors import HrviewerError
from hrviewer.runs import Run


def test_mcnn_alone_on_a_photo(shared, tmp_path):
    photo = shared / "data/aerial"
    images = sorted(p for p in photo.rglob("*") if p.suffix.lower() in (".jpg", ".png", ".tif"))
    if not images:
        pytest.skip("no photo is shared")
    model = shared / "models/mcnn_shtechB_110.onnx"
    out = tmp_path / "a.run.zarr"
    run = hrviewer.run(images[0], model, "nonuniform", cache="off", out=out)
    full = hrviewer.run(images[0], model, "uniform", cache="off", out=tmp_path / "b.run.zarr")
    assert np.isfinite(run.estimate["value"])
    assert run.cost["flops"] == pytest.approx(full.cost["flops"], rel=0.15)
    assert any("no scout" in note for note in run.header["notes"])
    output, _ = run.map("output")
    assert np.nansum(output[:]) == pytest.approx(run.estimate["value"], rel=1e-3)
    assert np.isfinite(output[:]).all()


@pytest.mark.slow
def test_nuclei_on_a_region_of_a_slide(shared, tmp_path):
    slide = shared / "data/wsi/CMU-1-Small-Region.svs"
    region = (900, 700, 512, 640)
    out = tmp_path / "a.run.zarr"
    options = {"region": region, "cache": "off", "share": 0}  # nothing corrects the scout
    run = hrviewer.run(slide, "nuclei", "nonuniform", out=out, **options)
    output, cell = run.map("output")
    assert np.nansum(output[:]) == pytest.approx(run.estimate["value"], rel=1e-3)
    cells = np.argwhere(np.isfinite(output[:].sum(0))) * cell
    assert (cells.min(0) >= np.array(region[:2]) - cell).all()
    assert (cells.max(0) < np.array(region[:2]) + region[2:]).all()


def test_prior_maps_are_part_of_a_run(tmp_path):
    image, bundle = picture(400, 400), ToyBundle(main=Bright())
    prior = np.zeros((20, 20))
    prior[3:6, 12:15] = 1

    def go(name, **changes):
        out = tmp_path / f"{name}.run.zarr"
        return hrviewer.run(image, bundle, "nonuniform", out=out, cache="off", **changes)

    run = go("a", priors={"saliency": prior})
    cost = run.cost_map()
    assert cost[4:7, 16:18].mean() > 2 * cost[12:].mean()
    (name,) = run.header["priors"].values()
    assert name != go("b", priors={"saliency": prior.T}).header["priors"]["saliency"]
    assert go("c", priors={"density": run}).header["priors"].keys() == {"density"}
    again = go("d", priors={"density": str(tmp_path / "a.run.zarr")})
    assert again.header["prior_sources"] == {"density": str(run.path.resolve())}
    assert run.header["prior_sources"] == {}
    np.testing.assert_array_equal(again.cost_map(), Run(tmp_path / "c.run.zarr").cost_map())
    with pytest.raises(HrviewerError, match="another prior"):
        go("a", priors={"saliency": prior.T}, resume=True)
    with pytest.raises(HrviewerError, match="rows, columns"):
        go("e", priors={"saliency": prior[0]})
    with pytest.raises(HrviewerError, match="takes no prior map 'colour'"):
        go("f", priors={"colour": prior})
    with pytest.raises(HrviewerError, match="takes: none"):
        hrviewer.run(image, bundle, "patches", priors={"saliency": prior})
