"""torchvision's changes of pictures, each picture by a seed of its own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

_PADDING = 1 / 8  # of each side, for RandomCrop: 4 of 32 pixels, as it is used on CIFAR


def transform_images(images: Tensor, kind: str, seeds: Sequence[int]) -> Tensor:
    """Pictures after torchvision's transform, of the same size.

    Parameters
    ----------
    images : float tensor of shape (n_images, channels, height, width)
        From 0 to 1; rounded to 8 bits, which the transforms are made for.
    kind : str
        random_crop (out of the picture with an eighth of black around it), rand_augment or trivial_augment_wide.
    seeds : sequence of int
        A picture's change depends on its own seed alone. torch's own random numbers go on as if nothing had been.

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


def _transform(kind: str, height: int, width: int) -> Callable[[Tensor], Tensor]:
    if kind == "random_crop":
        padding = (round(width * _PADDING), round(height * _PADDING))
        crop: Callable[[Tensor], Tensor] = v2.RandomCrop((height, width), padding=padding)
        return crop
    policies = {"rand_augment": v2.RandAugment, "trivial_augment_wide": v2.TrivialAugmentWide}
    policy: Callable[[Tensor], Tensor] = policies[kind]()
    return policy
