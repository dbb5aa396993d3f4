"""Stain augmentation: from few photos in one stain to many fields in any.

The photos are violet on lilac or white; slides are blue on pink, with fibres, folds, keratin,
blood and ink. So each field is taken apart in optical density, where stains add up, into nuclei
and what lies between them. Both are restained, independently, and laid into tissue that is
made from filtered noise: streaks, sheets and gaps. Some of it holds no nuclei but appears as if it
might.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from hrviewer_histology.photos import Photo

__all__ = [
    "PhotoFields",
    "UnlabelledPhotos",
    "augment_stain",
    "make_textures",
    "restain",
    "simulate_camera",
]

NUCLEAR_STAINS = ((0.75, 0.60, 0.28), (0.65, 0.70, 0.29), (0.52, 0.76, 0.38), (0.60, 0.62, 0.50))
"""Optical density, red, green and blue, of nuclear stains: from blue to violet and black."""
TISSUE_STAINS = ((0.12, 0.93, 0.34), (0.25, 0.88, 0.40), (0.42, 0.82, 0.38), (0.46, 0.72, 0.45))
"""Optical density of the other stains: from pink and red to lilac and violet."""
OTHER_STAINS = (
    (0.03, 0.75, 0.66),
    (0.25, 0.55, 0.80),
    (0.88, 0.30, 0.36),
    (0.94, 0.20, 0.26),
    (0.45, 0.85, 0.25),
)
"""Optical density of blood, pigment, ink and folds."""
COUNTERSTAINS = ((0.27, 0.57, 0.78), (0.17, 0.97, 0.12), (0.54, 0.81, 0.22), (0.80, 0.45, 0.39))
"""Optical density of what may stand where eosin does: DAB, PAS, trichromes."""
BANK, LONG = 96, 3
"""Textures, and the inverse share of them, the first, too long to be taken for nuclei."""


class PhotoFields(Dataset[tuple[Tensor, Tensor]]):
    """Batches of fields and their densities, each a function of the seed and its number alone.

    Parameters
    ----------
    photos
        What the fields are cut from.
    steps
        How many batches there are.
    seed
        What all chance is drawn from.
    batch
        Fields in each.
    side
        Their size in pixels, a multiple of 16.
    """

    def __init__(
        self, photos: Sequence[Photo], steps: int, seed: int = 0, batch: int = 12, side: int = 160
    ) -> None:
        self.photos = photos
        self.steps = steps
        self.batch = batch
        self.side = side
        self.seed = seed
        # A large photo is drawn more often, but not in proportion to its area.
        weight = np.array([p.layers[0].numel() ** 0.5 for p in photos])
        self.photo_weights = weight / weight.sum()
        self.textures = make_textures(np.random.default_rng(seed), BANK, max(256, side))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images ``(n, 3, side, side)`` from 0 to 1 and densities at a quarter the side."""
        rng = np.random.default_rng((self.seed, step))
        layers = torch.stack([self._make_field(rng) for _ in range(self.batch)])
        rgb, mass = augment_stain(layers, self.textures, rng)
        return rgb, F.avg_pool2d(mass, 4) * 16

    def _make_field(self, rng: np.random.Generator) -> Tensor:
        """Cut one field at a random scale: of one photo, or of four or nine if it is coarse."""
        if rng.random() < 0.5:
            scale = rng.uniform(0.75, 1.25)
        else:
            scale = float(np.exp(rng.uniform(np.log(0.25), np.log(0.9))))
        # Photos are small: a large field needs many, too.
        cells = (1 if scale > 0.5 else 2 if scale > 0.3 else 3) * max(1, self.side // 256)
        edges = np.linspace(0, self.side, cells + 1).round().astype(int)
        sizes = np.diff(edges)
        return torch.cat(
            [torch.cat([self._crop(rng, scale, h, w) for w in sizes], 2) for h in sizes], 1
        )

    def _crop(self, rng: np.random.Generator, scale: float, h: int, w: int) -> Tensor:
        """Cut a piece of a photo that is ``h × w`` at about `scale`."""
        photo = self.photos[rng.choice(len(self.photos), p=self.photo_weights)]
        layers = photo.layers
        scale = max(scale, 4 / photo.diameter)
        stretch = np.exp(rng.normal(0, 0.08))
        turn = rng.random() < 0.5
        if turn:
            h, w = w, h
        size = [
            min(round(side / by), whole)
            for side, by, whole in zip(
                (h, w), (scale * stretch, scale / stretch), layers.shape[1:], strict=True
            )
        ]
        y, x = (
            rng.integers(whole - s + 1) for whole, s in zip(layers.shape[1:], size, strict=True)
        )
        piece = photo.crop(y, x, *size)[None]
        if h * w < size[0] * size[1] and rng.random() < 0.5:
            out = F.interpolate(piece, (h, w), mode="area")[0]
        else:
            out = F.interpolate(piece, (h, w), mode="bilinear", antialias=True)[0]
        # Resampling keeps the mean; the mass must stay.
        out[3] *= piece[0, 3].sum() / out[3].sum().clamp(min=1e-6)
        out = out.flip([d for d in (1, 2) if rng.random() < 0.5])
        return out.transpose(1, 2) if turn else out


class UnlabelledPhotos(Dataset[tuple[Tensor]]):
    """Batches of unlabelled images, large enough to be downsampled: ``(n, 3, side, side)``."""

    def __init__(
        self, photos: Sequence[Photo], steps: int, seed: int = 0, *, batch: int = 4, side: int = 512
    ) -> None:
        self.fields = PhotoFields(photos, steps, batch=batch, side=side, seed=seed)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, step: int) -> tuple[Tensor]:
        """Return the pictures of the fields of this step."""
        return (self.fields[step][0],)


def make_textures(rng: np.random.Generator, count: int, side: int = 256) -> Tensor:
    """Return ``(count, side, side)`` tiles of noise from 0 to 1: grains, clouds, fibres, lamellae.

    Each is white noise through a band of frequencies that is narrow one way and wide the other,
    then bent by a slow flow, since no fibre is straight.
    """
    v, u = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    out = []
    for i in range(count):
        long = i < count // LONG
        angle = rng.uniform(0, np.pi)
        along = u * np.cos(angle) + v * np.sin(angle)
        across = v * np.cos(angle) - u * np.sin(angle)
        length = np.exp(rng.uniform(np.log(5 if long else 1), np.log(12)))
        width = np.exp(rng.uniform(np.log(2 if long else 1), np.log(12)))
        radius = np.hypot(along * length, across) * width
        band = np.exp(-((radius * 3) ** 2)) - rng.uniform(0, 1) * np.exp(-((radius * 6) ** 2))
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * band).real
        slow = np.exp(-((np.hypot(u, v) * rng.uniform(30, 120)) ** 2))
        flow = np.fft.ifft2(np.fft.fft2(rng.normal(size=(2, side, side))) * slow).real
        flow *= rng.uniform(0, 4) ** 2 / flow.std()
        ys, xs = np.indices((side, side)) + flow
        noise = noise[ys.round().astype(int) % side, xs.round().astype(int) % side]
        if rng.random() < 0.4:  # ridges: thin lines where the noise passes zero
            noise = -np.abs(noise)
        rank = np.searchsorted(np.sort(noise.ravel())[:: side // 4], noise.ravel())
        out.append(rank.reshape(side, side) / rank.max())
    return torch.from_numpy(np.stack(out)).float()


def augment_stain(layers: Tensor, bank: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn crops of photos ``(n, 5, h, w)`` into stained images and their counts."""
    rgb, mass, mask = layers[:, :3], layers[:, 3:4], layers[:, 4:]
    n = len(rgb)
    kind = rng.choice(3, n, p=(0.38, 0.5, 0.12))
    synthetic = torch.from_numpy(kind > 0).view(n, 1, 1, 1)
    empty = torch.from_numpy(kind == 2).view(n, 1, 1, 1)
    made, kept = _synthesize_tissue(rgb, mask, ~empty, bank, rng)
    rgb = torch.where(synthetic, made, rgb)
    mass = torch.where(synthetic, mass * kept, mass)
    return simulate_camera(rgb, rng), mass


def _synthesize_tissue(
    rgb: Tensor, mask: Tensor, keep: Tensor, bank: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Restain nuclei and tissue; return the image and the mask of kept nuclei."""
    n, _, h, w = rgb.shape

    def some(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 1, 1, 1))).float()

    def maybe(chance: float) -> Tensor:
        return torch.from_numpy(rng.random((n, 1, 1, 1)) < chance).float()

    def stain(choice: Sequence[Sequence[float]], jitter: float = 0.06) -> Tensor:
        mix = rng.dirichlet([0.4] * len(choice), n) @ np.array(choice)
        mix = np.clip(mix + rng.normal(0, jitter, mix.shape), 0.02, None)
        mix /= np.linalg.norm(mix, axis=1, keepdims=True) / np.sqrt(3)
        return torch.from_numpy(mix).float().view(n, 3, 1, 1)

    def texture(kinds: int = len(bank)) -> Tensor:
        tiles = bank[rng.integers(kinds, size=n)]
        ys, xs = rng.integers(0, bank.shape[1] - np.array([[h], [w]]) + 1, (2, n))
        cut = [t[y : y + h, x : x + w] for t, y, x in zip(tiles, ys, xs, strict=True)]
        return torch.stack(cut)[:, None]

    def region(share: Tensor) -> Tensor:
        """Return a soft-edged part of the field that covers about `share` of it."""
        cloud = torch.from_numpy(rng.normal(size=(n, 1, 5, 5))).float()
        cloud = F.interpolate(cloud, (h // 4, w // 4), mode="bicubic")
        cloud = F.interpolate(cloud, (h, w), mode="bilinear") + 0.15 * (texture() - 0.5)
        flat = cloud[..., ::8, ::8].flatten(1).sort(1).values
        rank = (1 - share.view(n, 1)) * (flat.shape[1] - 1)
        edge = flat.gather(1, rank.long()).view(n, 1, 1, 1)
        return torch.sigmoid((cloud - edge) * some(8, 60))

    # What is there, as if in a single stain: nuclei about 1, the clear ground 0.
    dense = -(rgb.mean(1, keepdim=True) * 255 / 256 + 1 / 256).log()
    ground = dense[..., ::4, ::4].flatten(1).quantile(0.15, dim=1).view(n, 1, 1, 1)
    dense = (dense - ground).clamp(min=0)
    inked = ((dense * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)).view(n, 1, 1, 1)
    dense = dense / inked.clamp(min=0.2)
    solid = some(0, 0.7)
    nuclei = mask * (solid + (1 - solid) * dense.clamp(max=2))
    # Chromatin in grains, or at the rim with a pale middle: still one nucleus.
    inside = (2 * F.interpolate(F.avg_pool2d(mask, 4), (h, w), mode="bilinear") - 1).clamp(0, 1)
    nuclei = nuclei * (1 - some(0, 0.8) * maybe(0.4) * inside)
    nuclei = nuclei * (1 + some(0, 0.9) * maybe(0.5) * (texture() - 0.5))
    between = (1 - mask) * dense.clamp(max=1.2)

    # Two tissues side by side, fibres and a sheet of cells, each perhaps torn open.
    sheets = []
    for stains, sharp in ((TISSUE_STAINS[:3], 10), (TISSUE_STAINS, 2)):
        contrast = some(0, 1) ** 2 * sharp + 1
        fibre = torch.sigmoid((texture() - some(0.2, 0.7)) * contrast)
        grain = texture() * some(0, 0.5) + 1
        level = some(0, 1) * some(0.2, 1.0)
        sheets.append(level * fibre * grain * stain(stains) * (1 - region(some(0, 0.5) ** 2)))
    border = region(some(0, 1))
    tissue = (border * sheets[0] + (1 - border) * sheets[1]) * maybe(0.9)
    spread = F.interpolate(F.avg_pool2d(mask, 4), (h, w), mode="bilinear")
    tissue = tissue * (1 - some(0, 1) * maybe(0.4) * (3 * spread - mask).clamp(0, 1) * keep)

    # What must not count: keratin in sheets and loose flakes with dark rims, blood, pigment, ink.
    keratin = region(some(0.1, 0.9)) * maybe(0.3)
    height = texture(BANK // LONG) - some(0.3, 0.85)
    rim = torch.exp(-((height * some(4, 20)) ** 2)) * some(0, 1) ** 2
    lamellae = torch.sigmoid(height * some(10, 40)) * some(0.1, 1.3) + rim
    lamellae = lamellae * stain(TISSUE_STAINS + OTHER_STAINS[4:], 0.1)
    specks = torch.sigmoid((texture() - some(0.5, 0.95)) * some(10, 60)) * (texture() + 0.3)
    dirt = specks * region(some(0.1, 0.9)) * maybe(0.25) * some(0.2, 1.0) * stain(OTHER_STAINS[:4])
    kept = (keep & (keratin < 0.5)).float()

    contrast = some(0.35, 1.9)
    ink = nuclei * contrast * stain(NUCLEAR_STAINS) + between * some(0, 0.5) * stain(TISSUE_STAINS)
    density = (ink * kept + tissue * (1 - some(0, 0.6) * mask * kept)) * (1 - keratin)
    density = density + keratin * lamellae + dirt * (1 - mask * kept)
    density = density * some(0.7, 1.25)
    return torch.exp(-density) * some(0.9, 1.0), kept


def restain(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a field of a section ``(3, h, w)`` in other amounts and shades of its two stains.

    Pixels are separated in optical density into haematoxylin, eosin and a rest (Ruifrok and
    Johnston 2001); each is scaled, and the stains' own colours are changed a little, or eosin's
    for another counterstain's.
    """
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    stains = np.vstack([stains, np.cross(*stains)])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    shades = stains + rng.normal(0, 0.05, stains.shape)
    if rng.random() < 0.12:
        shades[1] = COUNTERSTAINS[rng.integers(len(COUNTERSTAINS))]
    shades /= np.linalg.norm(shades, axis=1, keepdims=True)
    amounts = np.exp(rng.normal(0, (0.25, 0.35, 0.2)))
    change = np.linalg.inv(stains) * amounts @ shades
    density = -(rgb * 255 / 256 + 1 / 256).log()
    density = torch.einsum("chw,cd->dhw", density, torch.from_numpy(change).float())
    if rng.random() < 0.25:
        blurred = gaussian_filter(density.numpy(), (0, *[rng.uniform(0.4, 1.4)] * 2))
        density = torch.from_numpy(blurred)
    return torch.exp(-density).clamp(0, 1)


def simulate_camera(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Light, focus, sensor and file format, each a little different from field to field."""
    n = len(rgb)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, channels, 1, 1))).float()

    gain = draw(0.9, 1.08) * draw(0.94, 1.06, 3)
    rgb = (rgb.clamp(1e-3) ** draw(0.75, 1.35)) * gain
    soft = F.interpolate(F.avg_pool2d(rgb, 2), rgb.shape[2:], mode="bilinear")
    amount = draw(-1.0, 1.0)
    rgb = rgb + amount * (rgb - soft)
    grey = torch.from_numpy(rng.random((n, 1, 1, 1)) < 0.08)
    rgb = torch.where(grey, rgb.mean(1, keepdim=True), rgb)
    noise = torch.from_numpy(rng.standard_normal(rgb.shape, dtype=np.float32))
    rgb = (rgb + noise * draw(0, 1) ** 2 * 0.05).clamp(0, 1)
    for i in np.flatnonzero(rng.random(n) < 0.35):
        rgb[i] = _jpeg(rgb[i], int(rng.integers(35, 95)))
    return rgb


def _jpeg(rgb: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    pixels = (rgb * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
