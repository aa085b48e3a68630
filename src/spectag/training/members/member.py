"""One network of a tagger: what it hears, and how it learns its task, frozen or fine-tuned."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from spectag.array_types import BoolArray, FloatArray
from spectag.audio.front_end import FrontEnd
from spectag.audio.spectrogram_image import read_png
from spectag.config.backbones import backbone_spec, front_end_of
from spectag.config.base import ImageConfig
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.spectrograms.clip_inputs import ClipInputs, open_clips
from spectag.errors import ConfigError, SpectagError
from spectag.system.epoch_log import Epoch, OnEpoch
from spectag.system.progress import Log, Progress
from spectag.training.heads.per_fold import FrozenFeatures, fit_by_gradient, fit_by_lbfgs
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.inputs.mixed_clips import make_mixes
from spectag.training.networks.network import StandardizedLinear, Tagger
from spectag.training.setup.task import CrossValidation


@dataclass(frozen=True)
class Heard:
    """What one member hears of the manifests' clips."""

    recipe: Recipe
    front_end: FrontEnd
    store: FeatureStore
    clips: ClipInputs
    noisy: ClipInputs | None

    @property
    def read_clips(self) -> tuple[Clip, ...]:
        """The clips that could be read, those with doubtful labels last."""
        return self.clips.manifest.clips + (self.noisy.manifest.clips if self.noisy else ())

    def frozen_features(self, y_true: BoolArray, *, progress: Progress, with_mixes: bool = True) -> FrozenFeatures:
        """Features of all clips by the network as it was published."""
        clips = self.store.compute(self.clips.keys, self.clips.inputs, progress=progress)
        noisy = None
        if self.noisy is not None:
            noisy = self.store.compute(self.noisy.keys, self.noisy.inputs, progress=progress)
        mixes = None
        if self.recipe.n_mixed_clips and with_mixes:
            mixes = make_mixes(self.store, self.clips.keys, self.clips.inputs, y_true, self.recipe, progress=progress)
        return FrozenFeatures(clips, self.store.group_sizes(self.clips.inputs(0)), noisy, mixes)


@dataclass(frozen=True)
class MemberFit:
    """What a member has learnt.

    `taggers` answer together, with equal weights. `others` are taggers of other epochs by their names. `logits`
    (n_clips, n_labels) are those of held-out clips, NaN where there are none.
    """

    taggers: tuple[Tagger, ...]
    logits: FloatArray
    epochs: tuple[Epoch, ...] = ()
    others: dict[str, Tagger] = field(default_factory=dict)


def hear(
    manifest: Manifest,
    noisy: Manifest | None,
    recipe: Recipe,
    front_end: FrontEnd,
    root: Path,
    *,
    workers: int | None,
    progress: Progress,
    log: Log,
) -> Heard:
    """Open the inputs of a member, the bank made where it is missing."""
    store = FeatureStore(root, recipe, front_end)
    clips = open_clips(manifest, front_end, root, workers=workers, progress=progress, log=log)
    if noisy is None:
        return Heard(recipe, front_end, store, clips, None)
    doubtful = open_clips(noisy, front_end, root, workers=workers, progress=progress, log=log)
    return Heard(recipe, front_end, store, clips, doubtful)


def front_end_for(recipe: Recipe, manifest: Manifest) -> FrontEnd:
    """What a member's network is to hear, or see, of a manifest's clips.

    Raises
    ------
    ConfigError
        If the network can't take them, or settings of images are missing.
    """
    if not manifest.holds_images and recipe.image is None:
        return FrontEnd(mel=front_end_of(recipe.backbone, recipe.mel))
    if backbone_spec(recipe.backbone).mel_is_fixed:
        raise ConfigError(
            f"backbone {recipe.backbone} hears log_mels and was never shown images; choose one that takes images, "
            "such as --backbone efficientnet_lite0 or convnext_tiny"
        )
    if not manifest.holds_images:
        return FrontEnd(mel=front_end_of(recipe.backbone, recipe.mel), image=recipe.image)
    image = recipe.image or ImageConfig(colormap=_colormap(manifest), height=224, width=224)
    if recipe.image is None and recipe.mel is not None and image.colormap != "grey":
        raise ConfigError(
            f"{manifest.source}: its images are coloured, and to draw sounds as they were drawn their colour map must "
            "be known; give it as image.colormap, such as magma, with image.height and image.width"
        )
    if image.height is None or image.width is None:
        raise ConfigError("images may differ in size, so image.height and image.width are needed, such as 224 and 224")
    return FrontEnd(mel=recipe.mel and front_end_of(recipe.backbone, recipe.mel), image=image)


def _colormap(manifest: Manifest) -> str:
    """Grey for grey images, and for coloured ones the map that the field draws with."""
    for clip in manifest.clips:
        try:
            return "grey" if read_png(clip.path).ndim == 2 else "magma"
        except SpectagError:  # named later, when all are read
            continue
    return "grey"


def fit_frozen(
    heard: Heard,
    data: FrozenFeatures,
    task: CrossValidation,
    *,
    name: str,
    progress: Progress,
    log: Log,
    on_epoch: OnEpoch,
) -> MemberFit:
    """Fit heads on what the frozen network makes of the clips, its `Heard.frozen_features`."""
    recipe = heard.recipe
    if recipe.optimizer == "lbfgs":
        fit = fit_by_lbfgs(data, task, recipe, progress=progress, log=log)
    else:
        fit = fit_by_gradient(data, task, recipe, name=name, log=log, on_epoch=on_epoch)
    heads = kept_networks(fit.heads, task, recipe)
    return MemberFit(tuple(Tagger(heard.store.extractor, head).eval() for head in heads), fit.logits, fit.epochs)


def kept_networks(networks: Sequence[nn.Module], task: CrossValidation, recipe: Recipe) -> list[nn.Module]:
    """Of the networks of all parts those that the recipe keeps."""
    if task.whole is None:
        return list(networks)
    if recipe.final_model == "refit":
        return [networks[-1]]
    parts = networks[: len(task.parts)]
    return [mean_of_weights(parts)] if recipe.final_model == "average" else list(parts)


def mean_of_weights(networks: Sequence[nn.Module]) -> nn.Module:
    """A network with the mean of the weights of several that began alike.

    References
    ----------
    Wortsman et al., "Model soups", ICML 2022.
    """
    networks = [copy.deepcopy(network) for network in networks]
    _bring_to_one_scale(networks)
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)
        for name, first in states[0].items()
    }
    networks[0].load_state_dict(mean)
    return networks[0]


def _bring_to_one_scale(networks: Sequence[nn.Module]) -> None:
    """Let the linear heads centre and scale features alike, so that the mean of weights is that of what they do."""
    heads = [part for network in networks for part in network.modules() if isinstance(part, StandardizedLinear)]
    if heads:
        center = torch.stack([head.center for head in heads]).mean(dim=0)
        scale = torch.stack([head.scale for head in heads]).mean(dim=0)
        for head in heads:
            head.rebase(center, scale)
