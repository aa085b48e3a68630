"""A bundle is written completely or not at all, and describes its contents correctly."""

import copy
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.special import expit, logit

from helpers.configs import read_config
from spectag.audio.files import read_audio, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.base import MelConfig
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.errors import BundleError, MissingExtraError
from spectag.models.bundle import read_info
from spectag.models.network_session import open_session
from spectag.models.novelty import KEPT_FRACTION, NoveltyInfo
from spectag.models.out_of_fold import OutOfFoldPredictions, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import linear_curve
from spectag.scoring.scores import score_predictions
from spectag.system.epoch_log import Epoch
from spectag.system.progress import no_log, silent
from spectag.training import bundle_writer, curves
from spectag.training.bundle_writer import FoldScore, TrainingRecord, check_output, write_bundle
from spectag.training.heads.novelty import fit_directions
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members import bundle_member
from spectag.training.members.bundle_member import BundleMember
from spectag.training.members.bundle_network import FrozenNetwork
from spectag.training.members.clip_logits import FinetunedNetwork
from spectag.training.members.head_training import head_weights
from spectag.training.networks import traced_network
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor, TaggerNetwork, build_head

LABELS = ("Bell", "Größe | weiß", "Rain, heavy")
MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=160, n_mels=16, f_max=8000, std=20.0)
RECIPE = Recipe(backbone="scratch", mel=MEL, seed=3)
FRONT_END = FrontEnd(mel=MEL)
N_CLIPS = 6
FILES = {"spectag.json", "predictions.csv", "model.onnx", "weights.safetensors", "recipe.toml", "README.md"}


class Trained:
    """What a training has when it writes a bundle: six sounds, their features, and a head."""

    def __init__(self, root):
        rng = np.random.default_rng(0)
        for i, n_frames in enumerate((9, 30, 1, 17, 40, 21)):
            write_audio(root / f"{i}.wav", rng.normal(0, 0.1, 160 * n_frames - 60).astype(np.float32), 16_000)
        self.folder = root
        self.clips = open_sounds(self.manifest, FRONT_END, root / "cache")
        self.store = FeatureStore(root, RECIPE, FRONT_END)
        self.store.of_clips(self.clips, progress=silent)
        torch.manual_seed(0)
        self.head = head_weights(build_head("linear", 960, len(LABELS)))

    @property
    def manifest(self):
        return make_manifest([self.folder / f"{i}.wav" for i in range(N_CLIPS)])

    def record(self, calibration=None):
        return make_record(self.manifest, calibration)

    def member(self, **changes):
        member = BundleMember(
            recipe=RECIPE,
            front_end=FRONT_END,
            network=FrozenNetwork(self.store, self.head),
            clips=self.clips,
            store=self.store,
            weights_sha256=self.store.weights_sha256,
        )
        return replace(member, **changes)

    def write_bundle(self, output, record, **changes):
        return write_bundle(output, record, [self.member(**changes)])


def make_manifest(paths):
    labels_of_clips = [LABELS[:1], LABELS[1:2], LABELS[2:], LABELS[:2], LABELS[:1], ()]
    clips = [Clip(path, path.name, labels) for path, labels in zip(paths, labels_of_clips, strict=True)]
    return Manifest(Path("data ü/train.csv"), tuple(clips), LabelSet(LABELS))


def open_sounds(manifest, front_end, cache):
    return open_clips(manifest, front_end, cache, workers=1, progress=silent, log=no_log)


def make_record(manifest, calibration=None):
    predictions = np.random.default_rng(1).random((N_CLIPS, len(LABELS)))
    keys = tuple(f"{i:032x}" for i in range(N_CLIPS))
    out_of_fold = OutOfFoldPredictions(
        labels=manifest.labels,
        fnames=tuple(clip.fname for clip in manifest.clips),
        spans=((0.0, None),) * N_CLIPS,
        folds=("1", "2") * 3,
        groups=manifest.groups,
        keys=keys,
        y_true=manifest.multi_hot(),
        logits=logit(predictions),
    )
    return TrainingRecord(
        manifest=manifest,
        keys=keys,
        recipe=RECIPE,
        scores=score_predictions(manifest.multi_hot(), predictions, manifest.groups),
        folds=(FoldScore("1", 3, 0.75, None), FoldScore("2", 3, 0.5, None)),
        out_of_fold=out_of_fold,
        cross_fitted=out_of_fold.cross_fitted(method="none"),
        calibration=calibration,
        thresholds=np.array([0.25, np.nan, np.nan]),
        epochs=(),
        all_training_clips=out_of_fold,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        trained = Trained(tmp_path_factory.mktemp("bank"))
        yield trained


@pytest.fixture
def record(trained):
    return trained.record()


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "sub" / "my model ü"
    trained.write_bundle(output, trained.record())
    return output


@pytest.fixture
def no_export(monkeypatch, bundle):
    """Copy an earlier file of the network."""
    monkeypatch.setattr(bundle_member, "write_network", lambda *_, **__: shutil.copy(bundle / "model.onnx", _[-1]))


def module_of(step):
    return bundle_member if step in ("write_network", "save_file") else bundle_writer


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_bundle_has_its_files_and_nothing_is_left_beside_it(bundle):
    assert set(contents(bundle)) == FILES
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_bundle_can_be_read_by_others(bundle):
    assert bundle.stat().st_mode & 0o055 == 0o055
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in bundle.iterdir())


def test_weights_load_strictly_and_give_the_exported_probabilities(bundle, trained):
    torch.manual_seed(9)
    tagger = TaggerNetwork(
        FeatureStore(Path("unused"), RECIPE, FRONT_END).extractor, build_head("linear", 960, 3)
    ).eval()
    tagger.load_state_dict(load_file(bundle / "weights.safetensors"))
    with torch.inference_mode():
        expected = torch.sigmoid(tagger(torch.from_numpy(trained.clips.inputs(1)[None].copy())))[0]
    logits = Tagger(bundle).logits_of_inputs({FRONT_END: trained.clips.inputs(1)})
    np.testing.assert_allclose(expit(logits), expected, atol=1e-5)


def test_spectag_json_describes_data_and_network(bundle, record, trained):
    info = read_info(bundle)
    assert info.labels == LABELS
    assert info.front_end == FRONT_END
    assert (info.backbone.name, info.backbone.features, info.backbone.head) == ("scratch", "all", "linear")
    assert info.backbone.pretrained_on == "nothing"
    assert info.backbone.weights_sha256 == trained.store.weights_sha256
    assert (info.data.name, info.data.n_clips) == ("train.csv", N_CLIPS)
    assert info.data.n_clips_per_label == (3, 2, 1)
    assert set(info.versions) == {"python", "spectag", "torch", "onnxruntime", "numpy"}  # these tests import torch
    assert info.metrics["lwlrap"] == pytest.approx(record.scores.lwlrap)
    assert [fold["lwlrap"] for fold in info.metrics["folds"]] == [0.75, 0.5]


def test_spectag_json_is_valid_for_strict_readers(bundle):
    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((bundle / "spectag.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["labels"] == list(LABELS)


def test_thresholds_that_are_not_fitted_are_one_half_and_marked(bundle):
    info = read_info(bundle)
    assert info.thresholds == (0.25, 0.5, 0.5)
    assert info.thresholds_fitted == (True, False, False)
    assert "| Bell | 3 | 0.25 |" in (bundle / "README.md").read_text(encoding="utf-8")
    assert "| Rain, heavy | 1 | 0.50 (not fitted) |" in (bundle / "README.md").read_text(encoding="utf-8")


def test_difference_to_training_is_recorded_and_small(tmp_path, no_export, trained, record):
    difference = trained.write_bundle(tmp_path / "model", record)
    assert 0 <= difference < 1e-4
    assert read_info(tmp_path / "model").onnx_difference == difference


def test_recipe_can_be_used_again(bundle):
    assert read_config(bundle / "recipe.toml", Recipe) == RECIPE


def fingerprint(trained, output, record):
    trained.write_bundle(output, record)
    return read_info(output).data.fingerprint


def test_fingerprint_depends_on_labels_and_sounds_but_not_on_names(tmp_path, no_export, trained, record, bundle):
    first = read_info(bundle).data.fingerprint
    clips = record.manifest.clips
    renamed = [
        replace(clip, path=shutil.copy(clip.path, tmp_path / f"other {clip.fname}"), fname=f"other {clip.fname}")
        for clip in clips
    ]
    relabelled = [replace(clips[0], labels=LABELS[2:]), *clips[1:]]
    renamed, relabelled = (replace(record.manifest, clips=tuple(changed)) for changed in (renamed, relabelled))
    assert fingerprint(trained, tmp_path / "a", replace(record, manifest=renamed)) == first
    assert fingerprint(trained, tmp_path / "b", replace(record, manifest=relabelled)) != first
    assert fingerprint(trained, tmp_path / "c", replace(record, keys=("f" * 32, *record.keys[1:]))) != first


def test_without_held_out_clips_the_card_has_no_metrics(tmp_path, no_export, trained, record):
    trained.write_bundle(tmp_path / "model", replace(record, scores=None, folds=(), thresholds=np.full(3, np.nan)))
    assert read_info(tmp_path / "model").metrics == {}
    assert "No clips were held out" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_random_weights_are_not_called_pretrained(tmp_path, no_export, trained, record):
    trained.write_bundle(tmp_path / "model", record, recipe=Recipe(backbone="timm/test_resnet", pretrained=False))
    assert read_info(tmp_path / "model").backbone.pretrained_on == "nothing"


def test_epochs_are_written_as_a_table(tmp_path, no_export, trained, record):
    epochs = (Epoch(1, 0.75, 0.5, None, None), Epoch(2, 0.5, 0.25, 1.0, 0.125))
    trained.write_bundle(tmp_path / "model", replace(record, epochs=epochs))
    with (tmp_path / "model" / "epochs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:5] == ["epoch", "train_loss", "train_lwlrap", "valid_loss", "valid_lwlrap"]
    assert [row[:5] for row in rows[1:]] == [["1", "0.75", "0.5", "", ""], ["2", "0.5", "0.25", "1.0", "0.125"]]


def test_learning_curves_are_in_the_folder_before_it_gets_its_name(tmp_path, no_export, trained, record, monkeypatch):
    folder = tmp_path / "model"
    drawn = []
    monkeypatch.setattr(curves, "save_figure", lambda _, path: drawn.append((path.name, folder.exists())))
    trained.write_bundle(folder, replace(record, epochs=(Epoch(1, 0.75, 0.5, None, None),)))
    assert drawn == [("epochs.png", False)]


def test_without_matplotlib_the_log_says_that_there_is_no_picture(tmp_path, monkeypatch):
    def no_matplotlib(*_):
        raise MissingExtraError("matplotlib", "plots", "drawing a figure")

    monkeypatch.setattr(curves, "save_figure", no_matplotlib)
    lines = []
    curves.save_learning_curves(tmp_path / "epochs.png", [Epoch(1, 0.75, 0.5, None, None)], title="", log=lines.append)
    [line] = lines
    assert line.startswith("no picture of the learning curves: ")


def test_new_bundle_replaces_the_old_one_completely(tmp_path, no_export, trained, record):
    trained.write_bundle(tmp_path / "model", replace(record, epochs=(Epoch(1, 0.75, 0.5, None, None),)))
    trained.write_bundle(tmp_path / "model", record)
    assert set(contents(tmp_path / "model")) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_target_of_a_symbolic_link_is_replaced(tmp_path, no_export, trained, record):
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    trained.write_bundle(tmp_path / "model", record)
    assert (tmp_path / "model").is_symlink()
    assert set(contents(tmp_path / "disk")) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "model"]


@pytest.mark.parametrize("step", ["write_network", "save_file", "_onnx_difference", "write_info", "render_card"])
@pytest.mark.parametrize("is_there", [True, False], ids=["over an old one", "new"])
def test_ctrl_c_leaves_no_partial_files_and_the_old_bundle_unchanged(
    tmp_path, monkeypatch, no_export, bundle, trained, record, step, is_there
):
    def stop(*args, **options):
        raise KeyboardInterrupt

    if is_there:
        shutil.copytree(bundle, tmp_path / "model")
    monkeypatch.setattr(module_of(step), step, stop)
    with pytest.raises(KeyboardInterrupt):
        trained.write_bundle(tmp_path / "model", record)
    assert contents(tmp_path) == (
        {f"model/{name}": text for name, text in contents(bundle).items()} if is_there else {}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"] * is_there


def test_ctrl_c_during_replacement_restores_the_old_bundle(tmp_path, monkeypatch, no_export, bundle, trained, record):
    shutil.copytree(bundle, tmp_path / "model")
    rename, targets = Path.rename, []

    def stop_at_the_second(path, target):
        targets.append(target)
        if len(targets) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        trained.write_bundle(tmp_path / "model", record)
    assert contents(tmp_path / "model") == contents(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("write_info", OSError(28, "No space left on device")),
        ("save_file", SafetensorError("I/O error: No space left on device")),
    ],
)
def test_full_disk_is_an_error_that_names_the_bundle(tmp_path, monkeypatch, no_export, trained, record, step, error):
    def full(*args):
        raise error

    monkeypatch.setattr(module_of(step), step, full)
    with pytest.raises(BundleError, match=r"model: cannot write the model: .*No space left on device"):
        trained.write_bundle(tmp_path / "model", record)
    assert not list(tmp_path.iterdir())


def test_onnx_file_that_differs_from_training_is_refused(tmp_path, monkeypatch, no_export, trained, record):
    other = head_weights(build_head("linear", 960, len(LABELS)))  # not the one that was exported
    with pytest.raises(BundleError, match=r"model\.onnx differs from training by \d\.\de[-+]\d+ in probability"):
        trained.write_bundle(tmp_path / "model", record, network=FrozenNetwork(trained.store, other))
    assert not list(tmp_path.iterdir())


def test_model_that_tags_a_clip_with_other_probabilities_than_in_training_is_refused(
    tmp_path, no_export, trained, record
):
    clips = list(record.manifest.clips)
    write_audio(tmp_path / "other.wav", np.sin(np.arange(8000)).astype(np.float32), 16_000)
    clips[4] = replace(clips[4], path=tmp_path / "other.wav")
    changed = replace(record, manifest=replace(record.manifest, clips=tuple(clips)))
    message = r"other\.wav: the model tags this training clip with .+ 0\.\d+, but 0\.\d+ was computed in training"
    with pytest.raises(BundleError, match=message):
        trained.write_bundle(tmp_path / "model", changed)
    assert not (tmp_path / "model").exists()


def test_clip_that_has_disappeared_is_named_before_the_model_is_written(tmp_path, no_export, trained, record):
    clips = (replace(record.manifest.clips[0], path=tmp_path / "gone.wav"), *record.manifest.clips[1:])
    changed = replace(record, manifest=replace(record.manifest, clips=clips))
    with pytest.raises(BundleError, match=r"cannot be compared with its training: .*gone\.wav"):
        trained.write_bundle(tmp_path / "model", changed)
    assert not list(tmp_path.iterdir())


def novelty_of(trained):
    """A model of novelty, fitted on the six sounds."""
    features = trained.store.of_clips(trained.clips, progress=silent)
    n_used = trained.store.group_sizes(trained.clips.example)[-1]
    model = fit_directions(features, trained.manifest.multi_hot(), n_used=n_used)
    return replace(model, level=0.25, n_held_out=N_CLIPS)


def test_novelty_is_in_the_bundle_and_is_that_of_training(tmp_path, trained, record):
    novelty = novelty_of(trained)
    trained.write_bundle(tmp_path / "out", record, novelty=novelty)
    tagger = Tagger(tmp_path / "out")
    assert tagger.info.novelty == NoveltyInfo(network=0, kept_fraction=KEPT_FRACTION, n_held_out=N_CLIPS)
    features = trained.store.of_clips(trained.clips, progress=silent)
    tagged = [tagger.tag(clip.path).novelty for clip in record.manifest.clips]
    assert tagged == pytest.approx(novelty(features), abs=1e-3)


def test_other_novelty_than_in_training_is_refused(tmp_path, monkeypatch, trained, record):
    monkeypatch.setattr(BundleMember, "training_novelty", lambda *_: 7.0)
    with pytest.raises(BundleError, match=r"wav: the model gives this training clip the novelty .*, but 7\.0 was"):
        trained.write_bundle(tmp_path / "out", record, novelty=novelty_of(trained))
    assert not (tmp_path / "out").exists()


def test_first_network_with_novelty_computes_that_of_an_ensemble(tmp_path, three, trained):
    frozen, fine_tuned, _ = three.members
    members = [fine_tuned, replace(frozen, novelty=novelty_of(trained)), replace(frozen, novelty=novelty_of(trained))]
    write_bundle(tmp_path / "out", make_record(three.manifest), members, EnsembleWeights((0.5, 0.3, 0.2)))
    tagger = Tagger(tmp_path / "out")
    assert tagger.info.novelty.network == 1
    assert tagger.tag(three.files[0]).novelty == pytest.approx(members[1].training_novelty(0), abs=1e-3)


def test_level_bandwidth_and_duration_of_the_training_clips_are_in_the_bundle(bundle, trained):
    training = read_info(bundle).training_sounds
    assert training.n_clips == N_CLIPS
    assert training.level_dbfs.median == pytest.approx(-20, abs=1)  # noise with a deviation of 0.1
    assert training.bandwidth_hz.high > 7500
    seconds = [(160 * n_frames - 60) / 16_000 for n_frames in (9, 30, 1, 17, 40, 21)]
    assert training.duration_seconds.median == pytest.approx(np.median(seconds))


def test_longest_clips_are_compared_and_the_comparison_takes_bounded_time(trained):
    seconds = [5.0] * 100
    seconds[43], seconds[71] = 90.0, 70.0
    checked = bundle_writer._checked_clips(replace(trained.clips, seconds=tuple(seconds)))
    assert checked[:2] == [43, 71]
    assert {0, 99} <= set(checked)
    assert len(checked) <= 20
    hours = bundle_writer._checked_clips(replace(trained.clips, seconds=(3600.0,) * 100))
    assert len(hours) == 1


def test_output_folder_of_another_kind_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not empty and not a spectag model; choose another folder for -o"):
        check_output(tmp_path)


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(BundleError, match="is a file, but a model is a folder"):
        check_output(tmp_path / "model")


def test_output_in_an_unwritable_folder_is_refused(tmp_path):
    """Before the training, whose result would be lost."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"cannot write to .*file; choose another folder for -o"):
        check_output(tmp_path / "file" / "new" / "model")


@pytest.mark.parametrize("here", [".", "../here"])
def test_current_folder_is_refused(tmp_path, monkeypatch, here):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(BundleError, match="is the current folder"):
        check_output(Path(here))


def test_new_empty_and_bundle_folders_are_accepted(tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new" / "model", tmp_path / "empty", bundle):
        check_output(place)


def test_foreign_file_in_a_bundle_is_not_lost(tmp_path, bundle):
    shutil.copytree(bundle, tmp_path / "model")
    (tmp_path / "model" / "tags.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match=r"model: tags\.csv is not part of the model and would be lost"):
        check_output(tmp_path / "model")


def test_onnx_file_that_gives_nan_is_refused(tmp_path, no_export, trained, record):
    head = trained.head.scaled(1.0, np.nan)
    with pytest.raises(BundleError, match=r"model\.onnx differs from training by nan"):
        trained.write_bundle(tmp_path / "model", record, network=FrozenNetwork(trained.store, head))


# ------------------------------------------------------------------------------------------------ several networks

OTHER_MEL = MelConfig(sample_rate=22_050, n_fft=512, hop_length=200, n_mels=24, f_max=8000, std=20.0)
WEIGHTS = EnsembleWeights((0.5, 0.25, 2.0), bias=-0.5)


def scratch_network(seed):
    """A network with random weights and batch normalisation statistics."""
    torch.manual_seed(seed)
    tagger = TaggerNetwork(
        FeatureExtractor(build_backbone("scratch", pretrained=False), "all"), build_head("linear", 960, 3)
    )
    for name, values in tagger.state_dict().items():
        if "running" in name:
            values.copy_(torch.rand_like(values) + 0.5)
    return tagger.eval()


def as_torch(member):
    """The network of a member in torch."""
    if isinstance(member.network, FinetunedNetwork):
        return member.network.network
    head = build_head("linear", 960, 3)
    head.load_state_dict({name: torch.from_numpy(values) for name, values in member.network.head.arrays.items()})
    return TaggerNetwork(member.store.extractor, head).eval()


class Three:
    """Three networks of one architecture: one with the front end of `Trained`, two with another one."""

    def __init__(self, folder, trained):
        rng = np.random.default_rng(2)
        lengths = (100, 5_000, 12_000, 3_000, 9_000, 16_000)  # samples at 16 kHz; the first makes a single frame
        self.files = [folder / f"klang {i}.wav" for i in range(N_CLIPS)]
        for path, n_samples in zip(self.files, lengths, strict=True):
            write_audio(path, rng.normal(0, 0.1, n_samples).astype(np.float32), 16_000)
        other, self.manifest = FrontEnd(mel=OTHER_MEL), make_manifest(self.files)
        clips, other_clips = (open_sounds(self.manifest, front_end, folder) for front_end in (FRONT_END, other))
        trained.store.of_clips(clips, progress=silent)
        self.members = [
            trained.member(clips=clips),
            *(
                trained.member(front_end=other, network=FinetunedNetwork(scratch_network(seed)), clips=other_clips)
                for seed in (1, 2)
            ),
        ]

    @torch.inference_mode()
    def logits(self, i):
        """Each network's logits for clip i by torch."""
        inputs = [torch.from_numpy(member.clips.inputs(i)[None].copy()) for member in self.members]
        return [as_torch(member)(values).numpy()[0] for member, values in zip(self.members, inputs, strict=True)]


@pytest.fixture(scope="module")
def three(trained, tmp_path_factory):
    return Three(tmp_path_factory.mktemp("sounds"), trained)


@pytest.fixture(scope="module")
def ensemble(three, tmp_path_factory):
    """The bundle of the three networks."""
    output, traced = tmp_path_factory.mktemp("out") / "three", []
    trace = traced_network.trace_features
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(traced_network, "trace_features", lambda *args: traced.append(args) or trace(*args))
        difference = write_bundle(output, make_record(three.manifest), three.members, WEIGHTS)
    assert difference == read_info(output).onnx_difference <= 1e-4
    assert len(traced) == 2  # one graph for the two networks with inputs of the same size
    return output


def test_ensemble_gives_the_weighted_logits_of_torch(ensemble, three):
    tagger = Tagger(ensemble)
    for i, path in enumerate(three.files):
        expected = expit(
            sum(w * logits for w, logits in zip(WEIGHTS.weights, three.logits(i), strict=True)) + WEIGHTS.bias
        )
        np.testing.assert_allclose(tagger.tag(path).probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(tagger.probabilities(*read_audio(path)), expected, atol=1e-5)


def test_calibration_is_inside_a_single_network_and_after_the_weights_of_an_ensemble(tmp_path, three):
    curves = (linear_curve(0.5, 0.1), linear_curve(2.0, -1.0), linear_curve(1.0, 3.0))
    calibration = Calibration(method="platt", curves=curves)
    for name, members, weights in (("one", three.members[:1], ONE_MODEL), ("three", three.members, WEIGHTS)):
        write_bundle(tmp_path / name, make_record(three.manifest, calibration), members, weights)
        tagger = Tagger(tmp_path / name)
        for i, path in enumerate(three.files):
            logits = sum(w * own for w, own in zip(weights.weights, three.logits(i), strict=False)) + weights.bias
            expected = expit(logits * [0.5, 2.0, 1.0] + [0.1, -1.0, 3.0])
            np.testing.assert_allclose(tagger.tag(path).probabilities, expected, atol=1e-5)
            outputs = tagger.outputs(*read_audio(path))
            np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-5)
            np.testing.assert_allclose(outputs.logits, logits, atol=1e-4)
    session = open_session(tmp_path / "three" / "members" / "2" / "model.onnx", n_threads=1)
    inputs = three.members[1].clips.inputs(0)[None]
    np.testing.assert_allclose(
        session.run(["probabilities"], {"inputs": inputs})[0][0], expit(three.logits(0)[1]), atol=1e-5
    )


def test_held_out_predictions_are_in_the_bundle(bundle, record):
    found = read_out_of_fold(bundle)
    assert found.keys == record.keys
    np.testing.assert_allclose(found.logits, record.out_of_fold.logits, atol=1e-8)


def test_command_tags_with_an_ensemble_like_python(ensemble, three, run):
    done = run("tag", ensemble, *three.files, "--threshold", 0, "--format", "jsonl")
    assert done.status == 0
    tagger = Tagger(ensemble)
    for row, path in zip(done.out.splitlines(), three.files, strict=True):
        expected = [{"label": t.label, "probability": round(t.probability, 6)} for t in tagger.tag(path).top(3)]
        assert json.loads(row)["tags"] == expected


def test_each_network_has_its_folder_and_spectag_json_lists_them(ensemble):
    assert set(contents(ensemble)) == (FILES - {"model.onnx", "weights.safetensors"}) | {
        f"members/{number}/{name}" for number in (1, 2, 3) for name in ("model.onnx", "weights.safetensors")
    }
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in ensemble.rglob("*"))
    info = read_info(ensemble)
    assert [member.weight for member in info.members] == [0.5, 0.25, 2.0]
    assert [member.front_end.mel for member in info.members] == [MEL, OTHER_MEL, OTHER_MEL]
    assert (info.front_end, info.bias) == (FRONT_END, -0.5)
    assert "members/3, weight 2.000: scratch" in (ensemble / "README.md").read_text(encoding="utf-8")


def test_weights_of_each_network_load_strictly_and_are_its_own(ensemble, three):
    for number, member in enumerate(three.members, start=1):
        saved = load_file(ensemble / "members" / str(number) / "weights.safetensors")
        own = as_torch(member).state_dict()
        assert set(saved) == set(own)
        assert all(torch.equal(saved[name], own[name]) for name in own)


@pytest.mark.parametrize(
    "weights",
    [EnsembleWeights((0.75, 0.0), bias=-0.5), EnsembleWeights((0.0, 1.0)), EnsembleWeights((1.0, 0.0))],
)
def test_single_remaining_network_gives_the_probabilities_of_the_ensemble(tmp_path, three, weights):
    write_bundle(tmp_path / "model", make_record(three.manifest), three.members[:2], weights)
    assert set(contents(tmp_path / "model")) == FILES
    kept = int(np.argmax(weights.weights))
    tagger, front_end = Tagger(tmp_path / "model"), three.members[kept].front_end
    assert (tagger.info.members, tagger.front_end) == ((), front_end)
    expected = expit(weights.weights[kept] * three.logits(5)[kept] + weights.bias)
    np.testing.assert_allclose(tagger.tag(three.files[5]).probabilities, expected, atol=1e-5)
    loaded = scratch_network(9)
    loaded.load_state_dict(load_file(tmp_path / "model" / "weights.safetensors"))
    with torch.inference_mode():
        by_torch = torch.sigmoid(loaded(torch.from_numpy(three.members[kept].clips.inputs(5)[None].copy())))[0]
    np.testing.assert_allclose(by_torch, expected, atol=1e-5)


def test_weight_and_bias_become_part_of_a_layer_norm_head(trained):
    network = TaggerNetwork(trained.store.extractor, build_head("layer_norm", 960, 3)).eval()
    frozen = FrozenNetwork(trained.store, head_weights(network.head))
    for trained_network in (FinetunedNetwork(network), frozen):
        member = trained.member(network=trained_network)
        before = member.training_logits(0)
        np.testing.assert_allclose(member.scaled(3.0, 0.25).training_logits(0), 3 * before + 0.25, atol=1e-5)
        np.testing.assert_array_equal(member.training_logits(0), before)


def test_networks_without_weight_are_left_out(tmp_path, no_export, trained, record):
    members = [trained.member(weights_sha256=name) for name in "abc"]
    write_bundle(tmp_path / "model", record, members, EnsembleWeights((0.5, 0.0, 0.25)))
    info = read_info(tmp_path / "model")
    assert [(m.folder, m.weight, m.backbone.weights_sha256) for m in info.members] == [
        ("members/1", 0.5, "a"),
        ("members/2", 0.25, "c"),
    ]
    assert sorted(path.name for path in (tmp_path / "model" / "members").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (0.0, 0.0)])
def test_wrong_number_of_weights_is_refused(tmp_path, three, record, weights):
    with pytest.raises(ValueError, match="need a weight for each of 2 members, not all 0"):
        write_bundle(tmp_path / "model", record, three.members[:2], EnsembleWeights(weights))
    assert not list(tmp_path.iterdir())


def test_weights_of_other_epochs_are_in_the_bundle(tmp_path, no_export, trained, record):
    best = scratch_network(7)
    trained.write_bundle(tmp_path / "model", record, other_weights={"best": FinetunedNetwork(best)})
    saved = load_file(tmp_path / "model" / "best.safetensors")
    assert all(torch.equal(saved[name], values) for name, values in best.state_dict().items())
    check_output(tmp_path / "model")
    with pytest.raises(ValueError, match="other_weights are best or last, got third"):
        trained.member(other_weights={"third": best})


def fail_at(monkeypatch, name, n_before):
    """Let a step fail after `n_before` calls."""
    step, calls = getattr(bundle_member, name), []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) > n_before:
            raise OSError(28, "No space left on device")
        return step(*args, **options)

    monkeypatch.setattr(bundle_member, name, failing)


@pytest.mark.parametrize("step", ["write_network", "save_file"])
def test_failure_at_the_second_network_leaves_the_old_bundle(
    tmp_path, monkeypatch, no_export, bundle, trained, record, step
):
    shutil.copytree(bundle, tmp_path / "model")
    fail_at(monkeypatch, step, 1)
    with pytest.raises(BundleError, match="No space left on device"):
        write_bundle(tmp_path / "model", record, [trained.member()] * 2, EnsembleWeights((0.5, 0.5)))
    assert contents(tmp_path / "model") == contents(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_single_network_replaces_an_ensemble_completely(tmp_path, no_export, ensemble, trained, record):
    shutil.copytree(ensemble, tmp_path / "model")
    trained.write_bundle(tmp_path / "model", record)
    assert set(contents(tmp_path / "model")) == FILES


def test_exported_network_with_other_weights_is_refused(tmp_path, no_export, trained, record):
    members = [trained.member(), trained.member(network=FinetunedNetwork(scratch_network(5)))]
    with pytest.raises(BundleError, match=r"model\.onnx differs from training by"):
        write_bundle(tmp_path / "model", record, members, EnsembleWeights((0.5, 0.5)))
    assert not list(tmp_path.iterdir())


def test_small_difference_that_a_large_weight_amplifies_is_refused(tmp_path, no_export, trained, record):
    head = copy.deepcopy(trained.head)
    head.bias[0] += 2e-4
    near = trained.member(network=FrozenNetwork(trained.store, head))
    write_bundle(tmp_path / "model", record, [trained.member(), near], EnsembleWeights((0.5, 0.5)))
    with pytest.raises(BundleError, match=r"model\.onnx differs from training by \d\.\de-03"):
        write_bundle(tmp_path / "model", record, [trained.member(), near], EnsembleWeights((0.5, 50.0)))


@pytest.mark.parametrize("place", ["members/notes.txt", "members/2/notes.txt", "members/old/model.onnx"])
def test_foreign_file_among_the_networks_is_not_lost(tmp_path, ensemble, place):
    shutil.copytree(ensemble, tmp_path / "model")
    check_output(tmp_path / "model")
    (tmp_path / "model" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "model" / place).write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match=r"model: members/.* is not part of the model and would be lost"):
        check_output(tmp_path / "model")
