"""CLAP, a pair of networks that give a sound and a text vectors of one space: its files and its feature extraction."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from spectag.config.base import Config, MelConfig
from spectag.config.network_cards import (
    MAX_INPUT_SECONDS,
    CardFile,
    CardInput,
    CardOutputs,
    NetworkCard,
    OutputName,
    Text,
)
from spectag.config.padding import Padding

_PADDING: dict[str, Padding] = {"repeatpad": "repeat_whole", "repeat": "repeat", "pad": "silence"}


class ClapFeatures(Config):
    """How CLAP's audio encoder gets a sound, as in preprocessor_config.json. The defaults are those of transformers."""

    sampling_rate: int = Field(48_000, ge=100, le=1_000_000)
    """In Hz."""
    fft_window_size: int = Field(1024, ge=2, le=2**17)
    """In samples."""
    hop_length: int = Field(480, ge=1, le=2**17)
    """In samples."""
    feature_size: int = Field(64, ge=1, le=4_096)
    """Number of mel bands."""
    frequency_min: float = Field(0.0, ge=0, le=500_000)
    frequency_max: float = Field(14_000.0, gt=0, le=500_000)
    max_length_s: float = Field(10.0, gt=0, le=MAX_INPUT_SECONDS)
    """Length of the input in seconds."""
    truncation: Literal["fusion", "rand_trunc"] = "fusion"
    """It decides about the mel bands: fusion has htk's scale without a norm, rand_trunc has Slaney's scale and norm.
    Sounds are never truncated here, because longer ones are processed in parts."""
    padding: Literal["repeatpad", "repeat", "pad"] = "repeatpad"
    """How shorter sounds become long enough: repeatpad repeats them as often as they fit as a whole, then silence
    follows."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if round(self.max_length_s * self.sampling_rate) % self.hop_length:
            raise ValueError(f"max_length_s {self.max_length_s:g} is not a multiple of hop_length {self.hop_length}")
        return self

    @classmethod
    def of_preprocessor(cls, values: dict[str, Any]) -> Self:
        """The settings in the content of preprocessor_config.json; others in it have no effect in transformers."""
        return cls(**{name: value for name, value in values.items() if name in cls.model_fields})

    @property
    def input(self) -> CardInput:
        """The input of the audio encoder: (batch, 1, n_frames, n_mels)."""
        is_fused = self.truncation == "fusion"
        mel = MelConfig(
            sample_rate=self.sampling_rate,
            n_fft=self.fft_window_size,
            hop_length=self.hop_length,
            n_mels=self.feature_size,
            f_min=self.frequency_min,
            f_max=self.frequency_max,
            pad_mode="reflect",
            mel_scale="htk" if is_fused else "slaney",
            mel_norm=None if is_fused else "slaney",
            top_db=None,
        )
        return CardInput(
            kind="log_mel",
            mel=mel,
            n_frames=round(self.max_length_s * self.sampling_rate) // self.hop_length + 1,
            padding=_PADDING[self.padding],
            axes=("batch", "channel", "frames", "bands"),
        )


def _check_licence(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"expected one line of printable text, got {value[:60]!r}")
    return value


class ClapCard(Config):
    """The files of a CLAP, and where they come from."""

    version: Literal[1] = 1
    """Of the format."""
    name: Text
    """Such as laion/clap-htsat-unfused."""
    licence: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_licence)] = "unknown"
    """Of the weights."""
    homepage: str = "https://github.com/LAION-AI/CLAP"
    features: ClapFeatures
    audio: CardFile
    """An ONNX file of one input, the log-mel spectrogram."""
    audio_output: OutputName = "audio_embeds"
    text: CardFile
    """An ONNX file with the input input_ids, and perhaps attention_mask."""
    text_output: Annotated[str, Field(max_length=500)] = "text_embeds"
    tokenizer: CardFile
    """tokenizer.json"""

    @property
    def network(self) -> NetworkCard:
        """The audio encoder as the network of a card."""
        return NetworkCard(
            name="clap",
            trained_on="sounds and their captions",
            licence=self.licence,
            homepage=self.homepage,
            network=self.audio,
            input=self.features.input,
            outputs=CardOutputs(embedding=self.audio_output),
        )
