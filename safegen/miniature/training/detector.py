"""Trains the miniature's detector: a small one-stage detector whose ONNX output has YOLOv8's form, as NudeNet's has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.nn import functional

from safegen.errors import EditError
from safegen.miniature.concepts import LABELS
from safegen.miniature.training.loop import Recipe, fit
from safegen.miniature.training.pool import PicturePool, to_tensor

DETECTOR_RECIPE = Recipe(steps=2200, batch_size=64, learning_rate=2e-3, weight_decay=0.02)
CELL_PX = 4
GRID = 12


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.silu(x + self.body(x))


def _downsample(width_in: int, width_out: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), nn.SiLU())


class MiniatureDetector(nn.Module):
    """One-stage anchor-free detector on a 12 x 12 grid.

    Input: float32 (b, 3, 48, 48) RGB in [0, 1]. Output: float32 (b, 4 + labels, 144): centre x, centre y, width,
    height in pixels, then one score in [0, 1] per label of `LABELS`: the raw output form of YOLOv8 and NudeNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_downsample(3, 24), _Residual(24), _downsample(24, 48), _Residual(48))
        self.coarse = nn.Sequential(_downsample(48, 96), _Residual(96), _Residual(96))
        self.context = nn.Linear(96, 96)
        self.merge = nn.Sequential(
            nn.Conv2d(48 + 96, 80, 3, padding=1, bias=False), nn.BatchNorm2d(80), nn.SiLU()
        )
        self.head = nn.Conv2d(80, 4 + len(LABELS), 1)
        nn.init.constant_(self.head.state_dict()["bias"][4:], -5.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Detect; see the class for shapes and ranges."""
        boxes, logits = self.raw(images)
        return torch.cat([boxes, logits.sigmoid()], dim=1)

    def raw(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return boxes (b, 4, 144) in pixels and label logits (b, labels, 144)."""
        fine = self.fine(images * 2 - 1)
        coarse = self.coarse(fine)
        coarse = coarse + self.context(coarse.mean(dim=(2, 3)))[:, :, None, None]
        merged = self.merge(torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0)], dim=1))
        out = self.head(merged).flatten(2)
        cell = torch.arange(GRID * GRID)
        corner = torch.stack([cell % GRID, cell // GRID]).float() * CELL_PX + CELL_PX / 2
        centre = corner + out[:, 0:2].tanh() * 2 * CELL_PX
        size = functional.softplus(out[:, 2:4] + 1.0) * 4 * CELL_PX
        return torch.cat([centre, size], dim=1), out[:, 4:]


def train_detector(
    pool: PicturePool, negatives: np.ndarray, checkpoint: Path, recipe: Recipe = DETECTOR_RECIPE
) -> MiniatureDetector:
    """Train the detector on pictures of all concepts and on pictures that show none.

    Loss: focal loss of labels (Lin et al. 2017, arXiv 1708.02002, gamma 2) on the cells around the object's centre,
    + L1 of boxes there.

    Args:
        pool: Annotated pictures.
        negatives: uint8 (n, 48, 48, 3) pictures without an object: mosaics, blobs, plain backgrounds.
        checkpoint: Where progress is kept.
        recipe: Length and rates.
    """
    torch.manual_seed(recipe.seed)
    detector = MiniatureDetector()
    empty_per_batch = recipe.batch_size // 6

    def loss_of_step(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        del step
        indices = torch.randint(len(pool), (recipe.batch_size - empty_per_batch,), generator=generator)
        none = torch.randint(len(negatives), (empty_per_batch,), generator=generator)
        images = torch.cat([pool.images(indices), to_tensor(negatives[none.numpy()])])
        images, box = _augment(images, torch.from_numpy(pool.box[indices.numpy()]), generator)
        label = torch.from_numpy(pool.label[indices.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            boxes, logits = detector.raw((images + 1) / 2)
        return detection_loss(boxes.float(), logits.float(), box, label)

    fit(detector, loss_of_step, recipe, checkpoint)
    return detector


def detection_loss(
    boxes: Float[torch.Tensor, "b 4 cells"],
    logits: Float[torch.Tensor, "b labels cells"],
    box: Float[torch.Tensor, "positive 4"],
    label: Int[torch.Tensor, "positive"],
) -> tuple[Float[torch.Tensor, ""], dict[str, float]]:
    """Return the loss of a batch whose first pictures hold one object each and whose others hold none.

    Args:
        boxes: Predicted centre and size in pixels.
        logits: Predicted label logits.
        box: True x, y, width, height of the first pictures.
        label: Their true labels.
    """
    positive = len(label)
    centre = box[:, :2] + box[:, 2:] / 2
    column_row = (centre / CELL_PX).long().clamp(0, GRID - 1)
    cell = torch.arange(GRID * GRID)
    distance = torch.maximum(
        (cell[None] % GRID - column_row[:, :1]).abs(), (cell[None] // GRID - column_row[:, 1:]).abs()
    )
    near = distance <= 1
    target = torch.zeros_like(logits)
    target[torch.arange(positive), label] = near.float()
    ignore = torch.zeros_like(target)
    ignore[torch.arange(positive), label] = (distance == 2).float()
    probability = logits.sigmoid()
    miss = torch.where(target > 0, 1 - probability, probability)
    focal = miss.square() * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    label_loss = (focal * (1 - ignore)).sum() / near.sum()
    truth = torch.cat([centre, box[:, 2:]], dim=1)[:, :, None]
    box_loss = ((boxes[:positive] - truth).abs().mean(dim=1) * near).sum() / near.sum() / 10
    return label_loss + box_loss, {"label_loss": label_loss.item(), "box_loss": box_loss.item()}


def _augment(
    images: Float[torch.Tensor, "b 3 48 48"],
    box: Float[torch.Tensor, "positive 4"],
    generator: torch.Generator,
) -> tuple[Float[torch.Tensor, "b 3 48 48"], Float[torch.Tensor, "positive 4"]]:
    """Mirror, shift colours, soften and add noise at random."""
    count = len(images)
    mirror = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
    box = box.clone()
    mirrored = mirror[: len(box)]
    box[mirrored, 0] = 48 - box[mirrored, 0] - box[mirrored, 2]
    gain = 1 + 0.5 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    shift = 0.4 * (torch.rand(count, 3, 1, 1, generator=generator) - 0.5)
    grey_share = torch.rand(count, 1, 1, 1, generator=generator).pow(3)
    images = torch.lerp(images * gain + shift, images.mean(dim=1, keepdim=True).expand_as(images), grey_share)
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.35, soft, images)
    strength = 0.12 * torch.rand(count, 1, 1, 1, generator=generator)
    return (images + strength * torch.randn(images.shape, generator=generator)).clamp(-1, 1), box


def export_onnx(detector: MiniatureDetector, path: Path) -> None:
    """Write the detector as ONNX with a free batch size, labels in the metadata key ``names`` as YOLO has them."""
    import onnx

    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        detector.eval(),
        (torch.zeros(2, 3, 48, 48),),
        dynamo=True,
        dynamic_shapes={"images": {0: batch}},
        input_names=["images"],
        output_names=["output0"],
        verbose=False,
    )
    if program is None:
        raise EditError(
            "detector: the ONNX exporter returned nothing; check the versions of onnx and onnxscript"
        )
    program.save(str(path))
    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = "names", str(dict(enumerate(LABELS)))
    model.graph.doc_string = "miniature detector"
    onnx.save(model, str(path))
