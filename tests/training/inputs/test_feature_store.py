"""Features on disk: computed once, separate for different settings, and safe if the process is killed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import BACKBONES
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.recipe import Recipe
from spectag.data.spectrograms.clip_inputs import ClipPart
from spectag.errors import ConfigError, DataError, SpectrogramCacheError
from spectag.models import network_session
from spectag.models.clip_windows import FrameWindows
from spectag.models.network_session import open_session
from spectag.models.timeline import pool_logits
from spectag.system.cache import cache_folder
from spectag.system.progress import silent
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.networks import traced_network

HEIGHT = 16
MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=160, n_mels=HEIGHT, f_max=8000)
KEYS = [f"{number:032x}" for number in range(5)]


def store(root, *, mel=MEL, image=None, **recipe):
    return FeatureStore(root, Recipe(**{"backbone": "scratch"} | recipe), FrontEnd(mel=mel, image=image))


class Inputs:
    """The inputs of five clips; remembers which of them were requested."""

    def __init__(self, rng, *, height=HEIGHT):
        self.values = [rng.random((1, height, width), np.float32) for width in (7, 20, 1, 33, 20)]
        self.requested = []

    def __call__(self, i):
        self.requested.append(i)
        return self.values[i]


@pytest.fixture
def inputs(rng):
    return Inputs(rng)


def features_by_torch(features, inputs):
    with torch.inference_mode():
        return np.concatenate([features.extractor(torch.from_numpy(values[None])) for values in inputs.values])


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {".lock"}


def never(i):
    raise AssertionError(f"clip {i} was requested")


def test_features_equal_torch_in_the_order_of_the_clips(tmp_path, inputs):
    features = store(tmp_path)
    computed = features.compute(KEYS, inputs, progress=silent)
    np.testing.assert_allclose(computed, features_by_torch(features, inputs), rtol=1e-4, atol=1e-5)
    assert computed.dtype == np.float32
    assert sum(features.group_sizes(inputs.values[0])) == computed.shape[1] == 2 * (32 + 64 + 128 + 256)


def test_memory_for_features_has_no_limit_because_all_cores_need_it_at_once(tmp_path, inputs, monkeypatch):
    limits = []
    monkeypatch.setattr(network_session, "_limit_memory", lambda: limits.append("limited"))
    store(tmp_path).compute(KEYS, inputs, progress=silent)
    assert limits == []


def test_features_are_computed_once(tmp_path, inputs):
    first = store(tmp_path).compute(KEYS, inputs, progress=silent)
    again = store(tmp_path).compute(KEYS[::-1], never, progress=silent)
    np.testing.assert_array_equal(again, first[::-1])


def test_only_new_clips_are_computed(tmp_path, inputs):
    store(tmp_path).compute(KEYS[:2], inputs, progress=silent)
    inputs.requested.clear()
    steps = []
    store(tmp_path).compute(KEYS, inputs, progress=lambda *step: steps.append(step))
    assert set(inputs.requested) == {2, 3, 4}
    assert steps == [("features by scratch", n_done, 3) for n_done in range(4)]


def test_clips_of_the_same_content_are_computed_once(tmp_path, inputs):
    steps = []
    features = store(tmp_path).compute([KEYS[0]] * 3, inputs, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("features by scratch", 1, 1)
    np.testing.assert_array_equal(features, features[[0, 0, 0]])


CHANGES = {
    "another front end": {"mel": MEL.model_copy(update={"f_max": 7000.0})},
    "images": {"image": ImageConfig(height=HEIGHT, width=20)},
    "another image": {"image": ImageConfig(height=HEIGHT, width=20, low=-80)},
    "the last stage alone": {"features": "last"},
    "other random weights": {"seed": 1},
    "another backbone": {"backbone": "timm/test_resnet", "pretrained": False},
}


def test_whatever_changes_the_features_gets_a_folder_of_its_own(tmp_path):
    folders = [store(tmp_path, **change).folder for change in ({}, *CHANGES.values())]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == tmp_path / "features" for folder in folders)


@pytest.mark.parametrize("same", [{}, {"folds": 3}, {"weight_decay": 0.1}], ids=str)
def test_settings_of_the_head_keep_the_folder(tmp_path, same):
    assert store(tmp_path, **same).folder == store(tmp_path).folder


def test_files_of_a_killed_run_are_harmless_and_deleted(tmp_path, inputs):
    features = store(tmp_path)
    left = features.folder / ".work-killed"
    left.mkdir(parents=True)
    (left / f"{KEYS[0]}.npy").write_bytes(b"half")
    computed = features.compute(KEYS, inputs, progress=silent)
    np.testing.assert_allclose(computed, features_by_torch(features, inputs), rtol=1e-4, atol=1e-5)
    assert files(features.folder) == {f"{key[:2]}/{key}.npy" for key in KEYS}
    assert not left.exists()


def test_stopped_run_keeps_its_features_and_the_next_continues(tmp_path, rng, inputs):
    undisturbed = store(tmp_path / "undisturbed").compute(KEYS, inputs, progress=silent)
    features = store(tmp_path / "stopped")

    def stop(step, n_done, n_total):
        if n_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.compute(KEYS, inputs, progress=stop)
    assert {f"{key[:2]}/{key}.npy" for key in KEYS[:2]} <= files(features.folder)
    assert not list(features.folder.glob(".work-*"))
    inputs.requested.clear()
    np.testing.assert_array_equal(features.compute(KEYS, inputs, progress=silent), undisturbed)
    assert not {0, 1} & set(inputs.requested)


def test_features_that_are_not_finite_are_refused_and_not_kept(tmp_path, inputs):
    inputs.values[3][0, 0, 0] = np.nan
    features = store(tmp_path)
    with pytest.raises(DataError, match=rf"{KEYS[3]}: the features of this clip are not finite"):
        features.compute(KEYS, inputs, progress=silent)
    assert f"{KEYS[3][:2]}/{KEYS[3]}.npy" not in files(features.folder)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00cut", b"no features"])
def test_damaged_file_of_features_is_named(tmp_path, inputs, content):
    features = store(tmp_path)
    features.compute(KEYS, inputs, progress=silent)
    (path,) = features.folder.rglob(f"{KEYS[2]}.npy")
    path.write_bytes(content)
    with pytest.raises(SpectrogramCacheError, match=rf"{KEYS[2]}\.npy: cannot read the features: .+; delete the file"):
        features.compute(KEYS, inputs, progress=silent)


def test_folder_that_cannot_be_written_is_named(tmp_path, inputs):
    (tmp_path / "features").write_text("a file where the folder should be")
    with pytest.raises(
        SpectrogramCacheError, match=r"features.scratch-\w+: cannot write the features: Not a directory"
    ):
        store(tmp_path).compute(KEYS, inputs, progress=silent)


def test_size_that_the_network_does_not_take_is_an_error_with_advice(tmp_path, inputs):
    features = store(tmp_path, backbone="timm/vit_tiny_patch16_224", pretrained=False)
    message = (
        r"backbone timm/vit_tiny_patch16_224 does not accept inputs of 16 rows and 7 columns: Input height \(16\) "
        r"doesn't match model \(224\); set image\.height and image\.width"
    )
    with pytest.raises(ConfigError, match=message):
        features.compute(KEYS, inputs, progress=silent)


def test_exported_extractor_is_written_once_for_all_caches(tmp_path, monkeypatch, inputs):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache ü"))
    first = store(tmp_path / "a").onnx_file(inputs.values[0])
    written = first.stat().st_mtime_ns
    assert store(tmp_path / "b").onnx_file(inputs.values[1]) == first
    assert first.stat().st_mtime_ns == written
    [graph] = first.parent.glob("*-graph-*.onnx")
    in_cache = {name for name in files(cache_folder()) if not name.startswith("in-use/")}
    assert in_cache == {f"onnx/{first.name}", f"onnx/{graph.name}", "onnx/.lock"}
    assert not list(first.parent.glob(".work-*"))


def test_graph_is_traced_once_for_all_weights(tmp_path, monkeypatch, inputs):
    """Fine-tuned networks are exported with the graph of the network before training."""
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    first, other = store(tmp_path), store(tmp_path, seed=1)
    graph = first.network.graph(inputs.values[0])
    monkeypatch.setattr(traced_network, "trace_features", None)
    assert other.weights_sha256 != first.weights_sha256
    assert other.network.graph(inputs.values[0]) == graph
    path = tmp_path / "features.onnx"
    other.network.write_onnx(path, inputs.values[0], other.network.weights)
    [features] = open_session(path, n_threads=1).run(None, {"inputs": inputs.values[0][None]})
    with torch.inference_mode():
        expected = other.extractor(torch.from_numpy(inputs.values[0][None])).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_front_end_of_another_height_is_exported_again(tmp_path, rng, inputs):
    taller = Inputs(rng, height=24)
    features = store(tmp_path)
    assert features.onnx_file(inputs.values[0]) != features.onnx_file(taller.values[0])


# ------------------------------------------------------------------------------------------------ windows

WINDOWS = FrameWindows(length=20, hop=10, weight=0.5)


class ClipsInParts:
    """A clip of three parts, of which the second is too short for windows; and a short clip without windows."""

    def __init__(self, rng):
        self.inputs = [
            [rng.random((1, HEIGHT, width), np.float32) for width in widths] for widths in ((47, 25, 30), (29,))
        ]
        self.part_keys = KEYS[: len(self.inputs)]
        self.manifest = SimpleNamespace(clips=[SimpleNamespace(path=f"{key}.wav") for key in self.part_keys])
        self.n_read = 0

    def parts(self, index):
        self.n_read += 1
        if len(self.inputs[index]) == 1:
            yield ClipPart.of_whole(self.inputs[index][0])
            return
        for number, inputs in enumerate(self.inputs[index]):
            yield ClipPart(number, number + 1, inputs)


@pytest.fixture
def clips(rng):
    return ClipsInParts(rng)


def windows_of(features, clips, **settings):
    """The features of all clips, their parts and windows."""
    features.of_clips(clips, progress=silent)
    windows = FrameWindows(**{"length": 20, "hop": 10, "weight": 0.5} | settings)
    features.make_windows(clips, windows, progress=silent)
    return [features.of_parts(clips, index, windows) for index in range(len(clips.inputs))]


def test_each_part_has_the_features_of_its_own_windows(tmp_path, clips):
    features = store(tmp_path)
    long, short = windows_of(features, clips)
    assert [len(windows) for windows in long.windows] == [len(WINDOWS.starts(width)) for width in (47, 25, 30)]
    assert [len(windows) for windows in long.windows] == [4, 0, 2]
    assert [windows.shape for windows in short.windows] == [(0, long.features.shape[1])]
    for inputs, windows in zip(clips.inputs[0], long.windows, strict=True):
        for start, of_window in zip(WINDOWS.starts(inputs.shape[-1]), windows, strict=True):
            excerpt = torch.from_numpy(inputs[None, ..., start : start + 20])
            with torch.inference_mode():
                np.testing.assert_allclose(of_window, features.extractor(excerpt)[0], rtol=1e-4, atol=1e-5)


def test_clip_without_windows_has_the_logits_of_the_whole_clip(tmp_path, clips):
    _, short = windows_of(store(tmp_path), clips)

    def head(features):
        return features[:, :3]

    np.testing.assert_array_equal(short.logits(head, WINDOWS), pool_logits(head(short.features), short.seconds))


def test_windows_are_computed_once_for_each_length_and_step(tmp_path, clips):
    first = windows_of(store(tmp_path), clips)
    clips.n_read = 0
    again = windows_of(store(tmp_path), clips, weight=0.25)  # a weight changes no features
    assert clips.n_read == 0
    for parts, same in zip(first, again, strict=True):
        for windows, same_windows in zip(parts.windows, same.windows, strict=True):
            np.testing.assert_array_equal(windows, same_windows)
    assert [len(windows) for windows in windows_of(store(tmp_path), clips, hop=5)[0].windows] == [7, 2, 3]


@pytest.mark.slow
def test_network_of_one_size_accepts_no_windows(tmp_path, inputs):
    assert store(tmp_path).accepts_width(inputs.values[1], 5)
    one_size = store(tmp_path, backbone="timm/vit_tiny_patch16_224", pretrained=False)
    image = np.zeros((3, 224, 224), np.float32)
    assert one_size.accepts_width(image, 224)
    assert not one_size.accepts_width(image, 100)


@pytest.mark.parametrize("backbone", ["mn04_audioset", "dymn04_audioset", "efficientnet_lite0"])
def test_random_weights_of_a_published_network_need_no_tracing(tmp_path, monkeypatch, rng, backbone):
    """Tracing DyMN takes a minute, and the package has its graph."""
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(traced_network, "trace_features", None)
    inputs, mel = Inputs(rng, height=128), BACKBONES[backbone].mel
    features = store(tmp_path, mel=mel, backbone=backbone, pretrained=False)
    computed = features.compute(KEYS, inputs, progress=silent)
    np.testing.assert_allclose(computed, features_by_torch(features, inputs), rtol=1e-4, atol=1e-4)
    other = store(tmp_path, mel=mel, backbone=backbone, pretrained=False, seed=1)
    assert other.weights_sha256 != features.weights_sha256
