"""The inputs of an ensemble member, training of a frozen member, and which of its networks are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.audio.front_end import FrontEnd
from spectag.audio.spectrogram_image import read_png
from spectag.config.backbones import backbone_spec, resolve_mel
from spectag.config.base import ImageConfig
from spectag.config.network_cards import is_card, open_card
from spectag.config.recipe import Recipe
from spectag.config.transformers_networks import is_transformers_network, transformers_network
from spectag.data.clips import Clip, Manifest
from spectag.data.spectrograms.clip_inputs import ClipInputs, open_clips
from spectag.errors import ConfigError, SpectagError
from spectag.models.card_files import front_end_of, network_file
from spectag.models.clip_windows import ClipWindows, FrameWindows
from spectag.models.frames_info import FRAME_SECONDS, FramesInfo
from spectag.models.novelty import NoveltyModel
from spectag.models.pretrained import audioset_labels, audioset_synonyms
from spectag.models.word_list import TEMPLATE
from spectag.scoring.model_selection import HeldOutLogits
from spectag.system.epoch_log import Epoch
from spectag.system.progress import Progress
from spectag.training.heads.head_weights import HeadWeights, average_heads
from spectag.training.heads.learning_curve import LearningCurve, learning_curve
from spectag.training.heads.name_prior import Classifier, NamePrior, name_prior
from spectag.training.heads.novelty import fit_novelty
from spectag.training.heads.per_fold import FrozenFeatures, HeadFit, WindowFeatures, WindowLogits, fit_linear_heads
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.bundle_network import BundleNetwork, FrozenNetwork
from spectag.training.networks.frame_graph import has_stages
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation

if TYPE_CHECKING:
    from spectag.training.inputs.mixed_clips import MixedClips

N = TypeVar("N")


@dataclass(frozen=True)
class MemberInputs:
    """The inputs of one ensemble member for the clips of the manifests. `noisy` are the clips with noisy labels."""

    recipe: Recipe
    front_end: FrontEnd
    store: FeatureStore
    clips: ClipInputs
    noisy: ClipInputs | None

    @property
    def readable_clips(self) -> tuple[Clip, ...]:
        """The clips that can be read, those with noisy labels last."""
        return self.clips.manifest.clips + (self.noisy.manifest.clips if self.noisy else ())

    @property
    def gives_frames(self) -> bool:
        """Whether the network gives frames of 80 ms, too: one of EfficientAT whose weights stay."""
        mel, takes_log_mels = self.front_end.mel, self.front_end.n_frames_in(1.0) is not None
        if self.recipe.mode != "frozen" or mel is None or not (takes_log_mels and has_stages(self.store.network)):
            return False
        return isclose(FramesInfo().frame_seconds(mel), FRAME_SECONDS)

    def frozen_features(
        self,
        y_true: BoolArray | FloatArray,
        *,
        progress: Progress,
        with_mixed: bool = True,
        with_windows: bool = False,
    ) -> FrozenFeatures:
        """Features of all clips by the frozen network, and of their windows if these are wanted and may be used."""
        clips = self.store.of_clips(self.clips, progress=progress)
        noisy = mixed = None
        if self.noisy is not None:
            noisy = self.store.of_clips(self.noisy, progress=progress)
        if self.recipe.n_mixed_clips and with_mixed:
            mixed = self.mixed_clips(y_true, range(self.recipe.n_mixed_clips), progress=progress)
        parts = {row: self.store.of_parts(self.clips, row) for row in self.clips.rows_in_parts}
        prior = self._name_prior(clips.shape[1])
        windows = self._window_features(progress) if with_windows else None
        return FrozenFeatures(clips, self.store.group_sizes(self.clips.example), noisy, mixed, parts, prior, windows)

    def mixed_clips(self, y_true: BoolArray | FloatArray, numbers: range, *, progress: Progress) -> "MixedClips":
        """Features of the mixed clips with these numbers, from 0."""
        from spectag.training.inputs.mixed_clips import mix_clips  # needs PyTorch

        keys, inputs = self.clips.part_keys, self.clips.inputs
        return mix_clips(self.store, keys, inputs, y_true, self.recipe, numbers, progress=progress)

    def missing(self, *, with_windows: bool) -> IntArray:
        """The indices of the clips of which features are not in the cache yet, or those of windows, if wanted."""
        of_clips = self.store.missing(self.clips.part_keys)
        windows = self._windows() if with_windows else None
        of_windows = [] if windows is None else self.store.missing(self.clips.part_keys, windows)
        return np.array(sorted({*of_clips, *of_windows}), int)

    def _window_features(self, progress: Progress) -> WindowFeatures | None:
        """Features of the windows of clips; None if the recipe does not want them or no clip can have any."""
        windows = self._windows()
        if windows is None:
            return None
        self.store.make_windows(self.clips, windows, progress=progress)
        return WindowFeatures(windows, lambda row: self.store.of_parts(self.clips, row, windows))

    def _windows(self) -> FrameWindows | None:
        """The windows of clips; None if the recipe does not want them or no clip can have any."""
        windows = ClipWindows().in_frames(self.front_end)
        n_frames = self.front_end.n_frames_in(max(self.clips.seconds))
        if windows is None or n_frames is None or not windows.starts(n_frames):
            return None
        if not (self.recipe.clip_windows and self.store.accepts_width(self.clips.example, windows.length)):
            return None
        return windows

    def _name_prior(self, n_features: int) -> NamePrior | None:
        """What the network itself predicts for the labels, if it knows their names and the recipe wants it."""
        recipe = self.recipe
        is_published = recipe.pretrained and recipe.init is None and recipe.features == "all"
        classifier = self._classifier(n_features) if is_published and recipe.name_prior else None
        if classifier is None:
            if recipe.label_map:
                raise ConfigError(
                    f"label_map has no effect on {recipe.backbone} with these settings: it needs name_prior, and all "
                    "features of a published AudioSet network such as mn04_audioset, or of CLAP"
                )
            return None
        return name_prior(classifier, self.clips.manifest.labels, recipe.label_map)

    def _classifier(self, n_features: int) -> Classifier | None:
        """The network's own classifier of AudioSet's labels, or of the names of labels as texts; None without one."""
        network, labels = self.store.network, self.clips.manifest.labels.names
        if (layer := network.classifier()) is not None:
            return Classifier.of_last_features(*layer, n_features, audioset_labels(), audioset_synonyms())
        described = {name for names in self.recipe.label_map.values() for name in names}
        names = list(dict.fromkeys([*labels, *sorted(described)]))
        layer = network.text_classifier([TEMPLATE.format(name.replace("_", " ").lower()) for name in names])
        return layer and Classifier.of_last_features(*layer, n_features, names, {})


@dataclass(frozen=True)
class MemberFit:
    """The result of training a member.

    The predictions of `networks` are averaged with equal weights. `logits` are those of held-out clips. `other_weights`
    are networks of other epochs by name: best, last. `learning_curve` computes that of heads that were fitted exactly.
    `novelty` belongs to the features of a frozen network.
    """

    networks: tuple[BundleNetwork, ...]
    logits: HeldOutLogits
    epochs: tuple[Epoch, ...] = ()
    other_weights: dict[str, BundleNetwork] = field(default_factory=dict)
    learning_curve: Callable[[], LearningCurve | None] | None = None
    window_logits: WindowLogits | None = None
    novelty: NoveltyModel | None = None


def open_inputs(
    manifest: Manifest,
    noisy: Manifest | None,
    recipe: Recipe,
    front_end: FrontEnd,
    root: Path,
    callbacks: Callbacks,
    *,
    workers: int | None,
) -> MemberInputs:
    """Open the inputs of a member. Spectrograms that are missing in the cache folder `root` are computed."""

    def open_all(manifest: Manifest) -> ClipInputs:
        return open_clips(manifest, front_end, root, workers=workers, progress=callbacks.progress, log=callbacks.log)

    if is_card(recipe.backbone):
        stored = open_card(recipe.backbone)
        if stored.warning is not None:
            callbacks.log(stored.warning)
        network_file(stored, progress=callbacks.progress)  # may be a large download
    store = FeatureStore(root, recipe, front_end)
    return MemberInputs(recipe, front_end, store, open_all(manifest), None if noisy is None else open_all(noisy))


def front_end_for(recipe: Recipe, manifest: Manifest) -> FrontEnd:
    """The feature extraction between a manifest's clips and a member's network.

    Raises
    ------
    ConfigError
        If the network does not accept the clips, or image settings are missing.
    """
    if is_card(recipe.backbone) and not manifest.holds_images and recipe.image is None:
        resolve_mel(recipe.backbone, recipe.mel)  # an error if the recipe sets others
        return front_end_of(open_card(recipe.backbone).card, recipe.channel)
    if is_transformers_network(recipe.backbone) and not manifest.holds_images and recipe.image is None:
        resolve_mel(recipe.backbone, recipe.mel)
        return front_end_of(transformers_network(recipe.backbone), recipe.channel)
    if not manifest.holds_images and recipe.image is None:
        return FrontEnd(mel=resolve_mel(recipe.backbone, recipe.mel), channel=recipe.channel)
    if backbone_spec(recipe.backbone).mel_is_fixed:
        raise ConfigError(
            f"backbone {recipe.backbone} takes log_mels and was not trained on images; use a backbone that takes "
            "images, such as --backbone efficientnet_lite0 or convnext_tiny"
        )
    if not manifest.holds_images:
        return FrontEnd(mel=resolve_mel(recipe.backbone, recipe.mel), image=recipe.image, channel=recipe.channel)
    image = recipe.image or ImageConfig(colormap=_colormap(manifest), height=224, width=224)
    if recipe.image is None and recipe.mel is not None and image.colormap != "grey":
        raise ConfigError(
            f"{manifest.source}: its images have colours, and the colour map is needed to draw sounds in the same way; "
            "set image.colormap, such as magma, with image.height and image.width"
        )
    if image.height is None or image.width is None:
        raise ConfigError("images may differ in size, so image.height and image.width are needed, such as 224 and 224")
    return FrontEnd(mel=recipe.mel and resolve_mel(recipe.backbone, recipe.mel), image=image, channel=recipe.channel)


def _colormap(manifest: Manifest) -> str:
    """Grey for grey images; magma, the most common colour map of spectrograms, for images with colours."""
    for clip in manifest.clips:
        try:
            return "grey" if read_png(clip.path).ndim == 2 else "magma"
        except SpectagError:  # reported later, when all clips are read
            continue
    return "grey"


def fit_frozen(
    inputs: MemberInputs, data: FrozenFeatures, cross_validation: CrossValidation, callbacks: Callbacks, *, name: str
) -> MemberFit:
    """Fit heads on the features of the frozen network, its `MemberInputs.frozen_features`."""
    recipe = inputs.recipe
    curve: Callable[[], LearningCurve | None] | None = None
    windows: FrameWindows | None = None
    window_logits: WindowLogits | None = None
    if recipe.optimizer == "lbfgs":
        linear = fit_linear_heads(data, cross_validation, recipe, callbacks)
        fit = HeadFit[HeadWeights](tuple(map(HeadWeights.of_linear, linear.heads)), linear.logits)
        windows, window_logits = linear.heads[0].windows, linear.window_logits
        curve = partial(learning_curve, data, cross_validation, linear, seed=recipe.seed)
    else:
        from spectag.training.members.head_training import fit_by_gradient  # needs PyTorch

        fit = fit_by_gradient(data, cross_validation, recipe, callbacks, name=name)
    heads = final_networks(fit.heads, cross_validation, recipe, average_heads)
    networks = tuple(FrozenNetwork(inputs.store, head, windows) for head in heads)
    novelty = fit_novelty(data, cross_validation, seed=recipe.seed)
    return MemberFit(
        networks, fit.logits, fit.epochs, learning_curve=curve, novelty=novelty, window_logits=window_logits
    )


def final_networks(
    networks: Sequence[N], cross_validation: CrossValidation, recipe: Recipe, average: Callable[[Sequence[N]], N]
) -> list[N]:
    """The final networks (or heads) that the recipe keeps, from those of all trainings."""
    if cross_validation.all_clips is None:
        return list(networks)
    if recipe.final_model == "refit":
        return [networks[-1]]
    of_folds = networks[: len(cross_validation.folds)]
    return [average(of_folds)] if recipe.final_model == "average" else list(of_folds)
