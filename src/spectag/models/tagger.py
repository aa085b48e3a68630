"""A tagger at work: probabilities of sounds, computed by onnxruntime without PyTorch."""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from spectag.array_types import Float32Array, Waveform
from spectag.audio.files import AudioStream, audio_info, open_excerpt
from spectag.audio.sound_arrays import SoundArray, SoundInput, sound_source
from spectag.audio.windows import LEAST_NEW, Window, WindowCutter, WindowStream, is_longer
from spectag.config.base import (
    Channel,
    LongRecordingWindows,
    SegmentConfig,
    SegmentFrames,
    WindowConfig,
    parse_config,
    window_config,
)
from spectag.config.tagging import SEGMENT_FRAMES, TagSettings, segment_window
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, ConfigError, DataError
from spectag.models.bundle import CARD_FILE
from spectag.models.frames import (
    FrameCollector,
    FrameCutter,
)
from spectag.models.model_card import render_card
from spectag.models.sound_list import SoundItem, listed_sounds
from spectag.models.tagger_networks import TaggerNetworks, TaggerOutputs
from spectag.models.tags import Detection, Segments, Tags
from spectag.models.timeline import Timeline, find_segments
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, shown_progress, silent
from spectag.system.storage import is_url
from spectag.system.threads import map_ahead
from spectag.system.worker_pool import check_n_workers, n_usable_cores


def not_finite(path: str | Path, start_seconds: float) -> str:
    """Why a file cannot be tagged whose probabilities, in the window from this time on, are NaN."""
    return (
        f"{path}: the probabilities from {start_seconds:g} s on are not finite; check the file, or the model if this "
        "happens with every file"
    )


class Tagger(TaggerNetworks):
    """A trained model that is ready to tag: one network, or an ensemble of several.

    Parameters
    ----------
    bundle : str or Path
        The folder that `spectag train` wrote.
    n_threads : int
        Threads of the network. Probabilities do not depend on it.
    channel : "mix", "loudest" or int, optional
        How several channels of a sound become one. By default as in training.
    device : "auto", "cpu", "cuda", "coreml", "directml" or "openvino"
        Where the networks run. auto takes cuda or directml if the installed onnxruntime has it and it opens the
        network, otherwise the CPU. A DeviceWarning says what runs on the CPU though another device was to be used.

    Raises
    ------
    BundleError
        If the folder does not contain a tagger, or a damaged one.
    ConfigError
        If the installed onnxruntime does not have the device. At the first use, if it cannot run the network on it.

    Examples
    --------
    >>> model = spectag.load("model")  # doctest: +SKIP
    >>> model.tag("a.wav")  # doctest: +SKIP
    Tags(a.wav, 0 to 5 s: Dog 0.98, Bark 0.91)
    """

    def __repr__(self) -> str:
        """The folder, the number of labels and the backbone."""
        return f"Tagger({str(self.folder)!r}: {len(self.labels)} labels, {self.info.backbone.name})"

    def __fspath__(self) -> str:
        """The folder, so that functions that take the path of a model also take an open one."""
        return str(self.folder)

    @property
    def card(self) -> str:
        """The model card: what the model knows, how good it is, and its licences, as Markdown."""
        path = self.folder / CARD_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else render_card(self.info, self.folder.name)

    def with_channel(self, channel: Channel | None) -> "Tagger":
        """The same tagger for another channel of the sounds; None: as it is."""
        if channel is None or channel == self.channel:
            return self
        return Tagger(self.folder, n_threads=self.n_threads, channel=channel, device=self.device)

    @property
    def segment_window(self) -> WindowConfig:
        """What it finds segments from by default: its frames, or windows if it has none."""
        return segment_window(self.shortest_seconds) if self.info.frames is None else SEGMENT_FRAMES

    def tag(
        self,
        sound: SoundInput,
        sample_rate: float | None = None,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Tags:
        """The predictions for a whole sound, or for an image if the tagger was trained on images.

        A sound longer than `max_clip_seconds` of the bundle (60) is predicted in parts of that length, the last of
        which ends with the sound. Their logits are pooled (`pool_logits`) and then calibrated, as in training.

        Parameters
        ----------
        sound : path, URL or array
            A file; or samples of shape (n_samples,) or (n_samples, n_channels): floats in [-1, 1], or int16, int32,
            int8 or uint8, which are scaled. Lists, and tensors on the CPU, are arrays.
        sample_rate : number, optional
            Of an array, in Hz. The sound is resampled.
        start_seconds, end_seconds : float
            The excerpt to tag; by default the whole sound.

        Raises
        ------
        AudioError, DataError
            If the sound cannot be read, or its probabilities are not finite.
        """
        with sound_source(sound, sample_rate) as source:
            tags = self._tag(source, start_seconds, end_seconds, n_threads=n_usable_cores())
        return replace(tags, path=sound) if is_url(sound) else tags

    def _tag(
        self,
        source: Path | SoundArray,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        *,
        n_threads: int = 1,
    ) -> Tags:
        if is_image(source):
            return self._tags(source, 0.0, None, self.outputs_of_image(source, features=False))
        with self.open_windows(source, start_seconds=start_seconds, end_seconds=end_seconds) as parts:
            outputs, duration = self._outputs_of_parts(parts, features=False, n_threads=n_threads)
        return self._tags(source, start_seconds, start_seconds + duration, outputs)

    def tag_many(
        self,
        sounds: str | Path | Iterable[SoundInput | tuple[ArrayLike, float]],
        sample_rate: float | None = None,
        *,
        workers: int | None = None,
        progress: Progress | bool = False,
    ) -> Iterator[Tags | AudioError]:
        """Tag many sounds on all cores, and yield the results in their order as soon as they are there.

        A sound that cannot be tagged gives an `AudioError` in its place, which says why.

        Parameters
        ----------
        sounds : iterable of paths, URLs and arrays, or a folder
            As for `tag`, also pairs of an array and its sample rate. They are taken when they are needed. A folder
            gives its sound files, sorted by path.
        sample_rate : number, optional
            Of the arrays, in Hz.
        workers : int, optional
            Number of cores to use. By default all of them.
        progress : bool or Progress
            True shows a progress bar; or a function that is called with the number of tagged sounds.

        Raises
        ------
        AudioError
            If an array has no sample rate, or the folder does not exist.
        BundleError
            If the model is damaged.
        ConfigError
            If `workers` is not above 0.

        Examples
        --------
        >>> for tags in model.tag_many(["a.wav", "b.wav"], progress=True):  # doctest: +SKIP
        ...     print(tags)
        """
        check_n_workers(workers)
        items, n_items = listed_sounds(sounds, sample_rate)
        with (
            shown_progress(progress) as report,
            closing(map_ahead(self._tag_or_error, items, n_threads=workers or n_usable_cores())) as results,
        ):
            for n_done, result in enumerate(results, start=1):
                report("tagging", n_done, max(n_done, n_items))
                yield result

    def _tag_or_error(self, item: SoundItem) -> Tags | AudioError:
        try:
            with sound_source(item.sound, item.sample_rate, name=item.name) as source:
                tags = self._tag(source)
            return replace(tags, path=item.name) if is_url(item.sound) else tags
        except AudioError as error:
            return error
        except Exception as error:
            reason = AudioError(skip_reason(item.name, error))
            reason.__cause__ = error
            return reason

    def tag_windows(
        self, sound: SoundInput, window: WindowConfig | float, *, sample_rate: float | None = None
    ) -> Iterator[Tags]:
        """The predictions for each window of a sound, in order. Memory use does not depend on its length.

        The last window ends with the recording and is as long as the others, so it may overlap the one before it more
        than the others do; it is left out if less than a tenth of a step in it is new. A recording shorter than a
        window is one window.

        Parameters
        ----------
        sound, sample_rate
            As for `tag`.
        window : WindowConfig or float
            The length of a window in seconds, or length and overlap.

        Raises
        ------
        AudioError
            If the sound cannot be read.
        ConfigError
            If `window` has no length above 0.
        """
        window = _windows_of_a_length(window)
        with sound_source(sound, sample_rate) as source, self.open_windows(source, window) as windows:
            for part in windows:
                outputs = self.outputs_of_window(part, features=False)
                tags = self._tags(source, part.start_seconds, part.end_seconds, outputs, window)
                yield replace(tags, path=sound) if is_url(sound) else tags

    def segments(
        self,
        sound: SoundInput,
        sample_rate: float | None = None,
        *,
        window: WindowConfig | float | None = None,
        min_confidence: float | None = None,
        settings: SegmentConfig | None = None,
        progress: Progress | bool = False,
    ) -> Segments:
        """The segments of a sound in which labels are on, as `spectag tag --segments` reports them.

        `timeline` has the probabilities of each window or frame, and the novelty if the model computes it.

        Parameters
        ----------
        sound, sample_rate
            As for `tag`.
        window : WindowConfig or float, optional
            The windows that are tagged, and then joined. By default the frames of the model, which are 80 ms long; if
            it has none, windows of 1.5 s with an overlap of 1 s.
        min_confidence : float, optional
            A probability from which every label is on. By default the thresholds of the model.
        settings : SegmentConfig, optional
            How windows or frames are joined.
        progress : bool or Progress
            True shows a progress bar; or a function that is called with the number of tagged seconds.

        Raises
        ------
        AudioError, DataError
            If the sound cannot be read, or its probabilities are not finite.
        ConfigError
            If `window` has no length above 0, or `min_confidence` is not from 0 to 1.
        """
        window = self.segment_window if window is None else _windows_of_a_length(window)
        has_frames = isinstance(window, SegmentFrames)
        window = SEGMENT_FRAMES if has_frames else window  # of short sounds, too
        least = parse_config({"min_confidence": min_confidence}, TagSettings, source="segments").min_confidence
        with (
            shown_progress(progress) as report,
            sound_source(sound, sample_rate) as source,
            self.open_windows(source, window) as windows,
        ):
            reported = _reported(windows, source, report)
            timeline = (self._timeline_of_frames if has_frames else self._timeline)(source, reported)
        limits = self.thresholds_for(window)
        limits = limits if least is None else np.full_like(limits, least)
        detections = tuple(
            Detection(self.labels.names[found.label_index], found.start_seconds, found.end_seconds, found.probability)
            for found in find_segments(timeline, limits, settings or SegmentConfig())
        )
        path, name = (sound, sound) if is_url(sound) else (_path_of(source), _name_of(source))
        return Segments(path, self.labels, detections, timeline, name)

    def _timeline(self, source: Path | SoundArray, windows: Iterable[Window]) -> Timeline:
        """The probabilities and novelty of all windows, computed on all cores."""
        outputs, starts, ends = self._outputs_of_windows(windows, features=False, n_threads=n_usable_cores())
        probabilities = np.stack([output.probabilities for output in outputs])
        _check_finite(source, probabilities, starts)
        novelty = np.array([output.novelty for output in outputs], np.float32) if self.has_novelty else None
        return Timeline(np.array(starts), np.array(ends), probabilities, novelty)

    def _timeline_of_frames(self, source: Path | SoundArray, blocks: Iterable[Window]) -> Timeline:
        """The probabilities and novelty of the frames of all blocks, computed on all cores."""
        assert self.info.frames is not None
        collector = FrameCollector(self.info.frames)
        with closing(map_ahead(self.outputs_of_block, blocks, n_threads=n_usable_cores())) as outputs:
            for block in outputs:
                if (start := collector.add(block)) is not None:
                    raise DataError(not_finite(_name_of(source), start))
        return collector.timeline()

    def embed(
        self, sound: SoundInput, sample_rate: float | None = None, *, window: WindowConfig | float | None = None
    ) -> Float32Array:
        """The features (n_features,) of a sound: what the network has found before its head turns it into labels.

        They are the numbers that the search index and the search for near-duplicates compare, before these centre and
        scale them (`spectag.curation.embedding.Embedding`). A sound in parts has the mean of its parts; of several
        networks, the features are those of the first.

        Parameters
        ----------
        sound, sample_rate
            As for `tag`.
        window : WindowConfig or float, optional
            The length of windows in seconds, or length and overlap: the result has shape (n_windows, n_features).

        Raises
        ------
        AudioError, DataError
            If the sound cannot be read, or its features are not finite.
        ConfigError
            If `window` has no length above 0.
        """
        windows = None if window is None else _windows_of_a_length(window)
        with sound_source(sound, sample_rate) as source:
            if is_image(source):
                features, starts = [self.outputs_of_image(source).features], [0.0]
            else:
                features, starts = self._features(source, windows)
        _check_finite(source, np.stack(features), starts)
        return features[0] if window is None else np.stack(features)

    def _features(
        self, source: Path | SoundArray, window: WindowConfig | None
    ) -> tuple[list[Float32Array], list[float]]:
        """The features of each window, and the starts of the windows; without a window, of the sound as a whole."""
        with self.open_windows(source, window) as windows:
            outputs, starts, ends = self._outputs_of_windows(windows, features=True, n_threads=n_usable_cores())
        if window is None:
            outputs, starts = [self.outputs_of_clip(outputs, starts, ends)], starts[:1]
        return [output.features for output in outputs], starts

    @contextmanager
    def open_windows(
        self,
        sound: str | Path | SoundArray,
        window: WindowConfig | None = None,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Generator[WindowStream]:
        """The windows of a file or an array, decoded and resampled one after the other; without `window`, its parts.

        They start at `spectag.audio.windows.window_starts`. Parts cover a recording to its last sample. With
        `SegmentFrames`, they are blocks of frames (`FrameBlock`), for `outputs_of_block`.

        With start and end, only this excerpt is read, and times count from its start.

        Raises
        ------
        AudioError
            If the file cannot be read: at once, or when the windows reach the damage.
        DataError
            If the tagger accepts only images.
        """
        seconds, overlap = (window.window_seconds, window.overlap_seconds) if window else (None, 0.0)
        longer_than = window.longer_than_seconds if isinstance(window, LongRecordingWindows | SegmentFrames) else None
        with _open_sound(sound, start_seconds, end_seconds, self.channel) as stream:
            blocks = self.clock.timed_items("reading", stream.blocks)
            if longer_than is not None:
                is_long, blocks = is_longer(blocks, round(longer_than * stream.sample_rate))
                seconds = seconds if is_long else None
            if isinstance(window, SegmentFrames) and seconds:
                yield self._frame_blocks(stream, blocks)
                return
            cutter = WindowCutter(
                stream.sample_rate,
                self.sample_rates,
                window_seconds=seconds or self.info.window.max_clip_seconds,
                overlap_seconds=overlap if seconds else 0.0,
                least_new=LEAST_NEW if seconds else 0.0,
            )
            windows = self.clock.timed_items("resampling", cutter.cut(blocks))
            yield WindowStream(windows, stream.faults, cutter, is_whole=seconds is None)

    def _frame_blocks(self, stream: AudioStream, blocks: Iterator[Waveform]) -> WindowStream:
        if self.info.frames is None or self.front_end.mel is None:
            raise ConfigError(f"{self.folder}: this model has no frames; give the length of windows")
        cutter = FrameCutter(stream.sample_rate, self.front_end.mel, self.info.frames)
        cut = self.clock.timed_items("resampling", cutter.cut(blocks))
        return WindowStream(cut, stream.faults, cutter, is_whole=False)

    def thresholds_for(self, window: WindowConfig | None) -> Float32Array:
        """The thresholds (n_labels,) for windows of this length; None: for whole recordings."""
        return np.array(self.info.thresholds_for(None if window is None else window.window_seconds), np.float32)

    def _tags(
        self,
        source: Path | SoundArray,
        start: float,
        end: float | None,
        outputs: TaggerOutputs,
        window: WindowConfig | None = None,
    ) -> Tags:
        _check_finite(source, outputs.probabilities[None], [start])
        return Tags(
            _path_of(source),
            start,
            end,
            self.labels,
            outputs.probabilities,
            self.thresholds_for(window),
            outputs.novelty,
            source if isinstance(source, SoundArray) else None,
            self.channel,
        )


def is_image(source: Path | SoundArray) -> TypeGuard[Path]:
    """Whether a sound is an image of a spectrogram."""
    return isinstance(source, Path) and source.suffix.lower() in IMAGE_SUFFIXES


@contextmanager
def _open_sound(
    sound: str | Path | SoundArray, start_seconds: float, end_seconds: float | None, channel: Channel
) -> Iterator[AudioStream]:
    if isinstance(sound, SoundArray):
        yield sound.open(start_seconds, end_seconds, channel=channel)
        return
    with open_excerpt(sound, start_seconds, end_seconds, channel=channel) as stream:
        yield stream


def _path_of(source: Path | SoundArray) -> Path | None:
    return source if isinstance(source, Path) else None


def _name_of(source: Path | SoundArray) -> str:
    return source.name if isinstance(source, SoundArray) else str(source)


def _reported(windows: Iterable[Window], source: Path | SoundArray, progress: Progress) -> Iterator[Window]:
    """The windows; the progress gets the seconds of sound in them."""
    n_seconds = 0
    if progress is not silent:
        n_seconds = math.ceil((source if isinstance(source, SoundArray) else audio_info(source)).duration_seconds)
    for window in windows:
        yield window
        progress("seconds", min(round(window.end_seconds), n_seconds), n_seconds)


def _windows_of_a_length(window: WindowConfig | float) -> WindowConfig:
    windows = window_config(window)
    if windows.window_seconds is None:
        raise ConfigError("window: need the length of a window, got window_seconds=None; give it in seconds, such as 5")
    return windows


def _check_finite(source: Path | SoundArray, values: Float32Array, starts: Sequence[float]) -> None:
    """Raise a DataError if probabilities or features (n_windows, n) are NaN or infinite."""
    is_finite = np.isfinite(values).all(axis=1)
    if not is_finite.all():
        raise DataError(not_finite(_name_of(source), starts[int(np.argmin(is_finite))]))
