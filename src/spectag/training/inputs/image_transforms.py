"""torchvision's image transforms, with a seed for each image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

_PADDING = 1 / 8  # of each side, for RandomCrop: 4 of 32 pixels, as is usual for CIFAR


def transform_images(images: Tensor, kind: str, seeds: Sequence[int]) -> Tensor:
    """Images after torchvision's transform, of the same size.

    Parameters
    ----------
    images : float tensor of shape (n_images, channels, height, width)
        From 0 to 1; rounded to 8 bits, as the transforms expect.
    kind : str
        random_crop (from the image with black padding of an eighth of its size), rand_augment or
        trivial_augment_wide.
    seeds : sequence of int
        An image's transform depends on its own seed only. torch's random state is left unchanged.

    Returns
    -------
    float tensor of the same shape, from 0 to 1, on the same device
    """
    transform = _transform(kind, images.shape[-2], images.shape[-1])
    pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    changed = torch.empty_like(pixels)
    with torch.random.fork_rng(devices=[]):
        for i, seed in enumerate(seeds):
            torch.default_generator.manual_seed(seed)
            changed[i] = transform(pixels[i])
    return changed.to(images.device, images.dtype) / 255


def _transform(kind: str, height: int, width: int) -> Any:
    """torchvision's transform of one image."""
    if kind == "random_crop":
        padding = (round(width * _PADDING), round(height * _PADDING))
        return v2.RandomCrop((height, width), padding=padding)
    return v2.RandAugment() if kind == "rand_augment" else v2.TrivialAugmentWide()
