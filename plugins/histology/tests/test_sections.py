"""Fields of marked sections, and hard negatives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hrviewer.errors import GroundTruthError
from PIL import Image

from hrviewer_histology.negatives import cover, negative_field
from hrviewer_histology.sections import SectionFields, UnlabelledSections, read_sections
from hrviewer_histology.stains import make_textures, restain
from hrviewer_histology.training_tasks import counted_section

TEXTURES = make_textures(np.random.default_rng(0), 4, 64)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for name in ("x_TCGA-A7-1.png", "y_TCGA-AC-2.png", "unmarked.png"):
        Image.fromarray(rng.integers(0, 256, (120, 100, 3), np.uint8)).save(tmp_path / name)
        entry = {"file": name, "w": 100, "h": 120}
        if name != "unmarked.png":
            points = np.column_stack([rng.uniform(0, (120, 100), (50, 2)), np.ones(50)])
            np.savetxt(tmp_path / f"{name}.txt", points, "%d")
            entry["label"] = f"{name}.txt"
        files.append(entry)
    source = {"files": files, "um_per_px": "about 0.25", "licence": "CC0"}
    index = {"sources": {"somewhere": source}}
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return tmp_path


def test_marked_sections_are_read_by_source(folder):
    sections = read_sections(folder)
    assert [section.source for section in sections] == ["TCGA-A7", "TCGA-AC"]
    assert [len(section.truth) for section in sections] == [50, 50]
    counted = counted_section(sections[0])
    assert counted.image.shape == (3, 112, 96)
    inside = (sections[0].truth.points < (112, 96)).all(axis=1).sum()
    assert counted.count == inside < 50


def test_sections_without_marks_are_read_at_half_a_micrometre(folder):
    sections = read_sections(folder, labelled=False)
    assert [each.source for each in sections] == ["somewhere", "TCGA-A7", "TCGA-AC"]
    assert len(sections[0].truth) == 0
    assert sections[0].rgb.shape == (60, 50, 3)
    assert {each.licence for each in sections} == {"CC0"}
    (images,) = UnlabelledSections(sections, 2, 0, batch=2, side=64)[1]
    assert images.shape == (2, 3, 64, 64)
    assert torch.isfinite(images).all()


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(GroundTruthError, match=r"no index\.json"):
        read_sections(tmp_path)


@pytest.mark.slow
def test_fields_depend_on_seed_and_number_alone_and_keep_their_nuclei(folder):
    sections = read_sections(folder)
    one, again = (SectionFields(sections, 3, 5, batch=6, negatives=2, side=64)[1] for _ in range(2))
    for a, b in zip(one, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    images, densities = one
    assert images.shape == (8, 3, 64, 64)
    assert densities.shape == (8, 1, 16, 16)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert densities[6:].abs().sum() == 0
    # 50 nuclei in 12,000 pixels: fields hold as many per area of the section.
    masses = torch.cat(
        [SectionFields(sections, 9, 0, batch=6, negatives=0, side=64)[i][1] for i in range(9)]
    )
    known = masses[~masses.isnan().flatten(1).any(1)].sum((1, 2, 3))
    assert float(known.min()) > 0
    assert 50 * 64**2 * 0.5 / 12_000 < float(known.median()) < 200


def test_negatives_are_pictures_and_cover_nuclei():
    rng = np.random.default_rng(3)
    fields = [negative_field(rng, 64, TEXTURES, scale) for scale in (0.7, 1, 2, 4) * 4]
    for field in fields:
        assert field.shape == (3, 64, 64)
        assert torch.isfinite(field).all()
        assert 0 <= float(field.min()) <= float(field.max()) <= 1
    image, density = cover(rng, torch.zeros(3, 64, 64), torch.ones(1, 16, 16), fields[0])
    covered, open_ = density == 0, density == 1
    assert covered.any()
    assert open_.any()
    pixels = image.mean(0).reshape(16, 4, 16, 4).mean((1, 3))
    assert float(pixels[open_[0]].max()) < 0.05


def test_a_restained_field_keeps_its_structure():
    rng = np.random.default_rng(4)
    field = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.4
    changed = torch.stack([restain(field, rng) for _ in range(8)])
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    grey = field.mean(0).ravel()
    for each in changed:
        assert float(torch.corrcoef(torch.stack([grey, each.mean(0).ravel()]))[0, 1]) > 0.3
    assert float((changed - field).abs().mean((1, 2, 3)).min()) > 0.01
