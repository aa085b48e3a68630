"""Fine-tuning that takes a moment: a few short synthetic sounds, and a small network."""

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.base import MelConfig
from spectag.config.recipe import Recipe
from spectag.data.spectrograms.clip_inputs import ClipPart
from spectag.training.inputs.batches import Examples
from spectag.training.members.clip_logits import ValidationClips
from spectag.training.members.finetune_loop import FineTuning
from spectag.training.networks.backbones.base import Backbone, FeatureMaps
from spectag.training.networks.network import FeatureExtractor, TaggerNetwork, build_head

SMALL_MEL = MelConfig(sample_rate=8000, n_fft=256, hop_length=160, n_mels=16, f_max=4000)
MEL = resolve_mel("scratch", SMALL_MEL)
FRONT_END = FrontEnd(mel=MEL)
LABELS = ("low", "middle", "high")
SMALL = {
    "mode": "finetune",
    "backbone": "scratch",
    "mel": SMALL_MEL,
    "epochs": 2,
    "batch_size": 4,
    "finetune": {"crop_seconds": 0.4},
}


def small_recipe(**settings):
    """The small recipe with other settings; `finetune` is merged with its own."""
    finetune = SMALL["finetune"] | settings.pop("finetune", {})
    return Recipe(**SMALL | settings | {"finetune": finetune})


def make_inputs(n_clips=12, n_frames=25, seed=0):
    """Inputs and y_true: log_mels of noise in which one third of the bands is loud, and which third."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(-2.0, 0.5, (n_clips, 1, 16, n_frames)).astype(np.float32)
    y_true = np.eye(3, dtype=bool)[np.arange(n_clips) % 3]
    for clip, label in zip(inputs, y_true.argmax(axis=1), strict=True):
        clip[:, 5 * label : 5 * label + 5] += 2.0
    return inputs, y_true


def make_examples(n_clips=12, n_noisy=0, seed=0):
    """Examples; the last `n_noisy` have noisy labels."""
    inputs, y_true = make_inputs(n_clips + n_noisy, seed=seed)
    is_noisy = np.arange(len(inputs)) >= n_clips
    return Examples(lambda i: inputs[i], y_true.astype(np.float32), np.ones(len(inputs), np.float32), is_noisy)


class TinyBackbone(Backbone):
    """Three stages of convolution, batch normalisation and dropout."""

    def __init__(self):
        super().__init__()
        self.network = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n_in, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Dropout(0.1)
            )
            for n_in in (1, 8, 8)
        )

    def feature_maps(self, inputs):
        stages = [inputs]
        for block in self.network:
            stages.append(block(stages[-1]))
        return FeatureMaps(tuple(stages[1:]))


def make_network(seed=0, n_labels=3):
    """A small network with random weights."""
    torch.manual_seed(seed)
    extractor = FeatureExtractor(TinyBackbone(), "all")
    n_features = extractor(torch.zeros(1, 1, 16, 20)).shape[1]
    return TaggerNetwork(extractor, build_head("linear", n_features, n_labels)).eval()


def weights_of(extractor):
    """The weights of an extractor as arrays, by their names."""
    return {name: values.numpy() for name, values in extractor.state_dict().items()}


def make_training(recipe=None, *, examples=None, network=None, valid=None, **options):
    """A fine-tuning run before its first step."""
    recipe = recipe or small_recipe()
    options = {"n_epochs": recipe.epochs} | options
    return FineTuning(
        network or make_network(),
        examples or make_examples(),
        valid,
        recipe,
        FRONT_END,
        accelerator=Accelerator(mixed_precision="no"),
        **options,
    )


def held_out(n_clips=6):
    """Clips that the small training is not trained on."""
    inputs, y_true = make_inputs(n_clips, n_frames=40, seed=1)
    return ValidationClips(lambda i: [ClipPart.of_whole(inputs[i])], np.arange(n_clips), y_true)


def write_sounds(folder, n_clips=12, seconds=0.5):
    """Tones in noise, each of one label, and a manifest with two folds."""
    rng = np.random.default_rng(0)
    rows = ["fname,labels,fold"]
    (folder / "clips").mkdir(parents=True)
    for number in range(n_clips):
        label = LABELS[number % 3]
        waveform = _tone(number % 3, seconds, rng)
        write_audio(folder / "clips" / f"{number:02}.wav", waveform, 8000)
        rows.append(f"{number:02}.wav,{label},{number // 3 % 2}")
    (folder / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "clips.csv"


def _tone(third, seconds, rng):
    times = np.arange(round(8000 * seconds)) / 8000
    hertz = (300, 1000, 2500)[third] * rng.uniform(0.95, 1.05)
    return (0.3 * np.sin(2 * np.pi * hertz * times) + 0.02 * rng.normal(size=len(times))).astype(np.float32)
