"""A bundle is written whole or not at all, and says of itself what is so."""

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

from spectag.audio.files import read_audio, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.base import MelConfig, read_config
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.errors import BundleError
from spectag.models.bundle import read_info
from spectag.models.out_of_fold import OutOfFoldPredictions, read_out_of_fold
from spectag.models.tagger import Tagger as RuntimeTagger
from spectag.models.tagger import open_session
from spectag.scoring.blending import ONE_MODEL, EnsembleWeights
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import line
from spectag.scoring.scores import score
from spectag.system.epoch_log import Epoch
from spectag.training import bundle_writer as packing
from spectag.training.bundle_writer import FoldScore, Member, TrainingRecord, check_output, pack
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor, Tagger, build_head

LABELS = ("Bell", "Größe | weiß", "Rain, heavy")
MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=160, n_mels=16, f_max=8000)
RECIPE = Recipe(backbone="scratch", mel=MEL, seed=3)
FRONT_END = FrontEnd(mel=MEL)
N_CLIPS = 6
FILES = {"spectag.json", "predictions.csv", "model.onnx", "weights.safetensors", "recipe.toml", "README.md"}


class Trained:
    """What a training has in hand when it packs: features, a head, and inputs of six clips."""

    def __init__(self, root):
        rng = np.random.default_rng(0)
        self.values = [rng.random((1, 16, width), np.float32) for width in (9, 30, 1, 17, 40, 21)]
        self.store = FeatureStore(root, RECIPE, FRONT_END)
        torch.manual_seed(0)
        self.head = build_head("linear", 960, len(LABELS))

    def inputs(self, i):
        return self.values[i]

    def member(self, **changes):
        member = Member(
            recipe=RECIPE,
            front_end=FRONT_END,
            tagger=Tagger(self.store.extractor, self.head).eval(),
            inputs=self.inputs,
            features_onnx=self.store.onnx_file(self.values[1]),
            weights_sha256=self.store.weights_sha256,
        )
        return replace(member, **changes)

    def pack(self, output, record, **changes):
        return pack(output, record, [self.member(**changes)])


def make_lesson(calibration=None):
    labels_of_clips = [LABELS[:1], LABELS[1:2], LABELS[2:], LABELS[:2], LABELS[:1], ()]
    clips = [Clip(Path(f"{i}.wav"), f"{i}.wav", labels) for i, labels in enumerate(labels_of_clips)]
    manifest = Manifest(Path("data ü/train.csv"), tuple(clips), LabelSet(LABELS))
    predictions = np.random.default_rng(1).random((N_CLIPS, len(LABELS)))
    keys = tuple(f"{i:032x}" for i in range(N_CLIPS))
    held_out = OutOfFoldPredictions(
        labels=manifest.labels,
        fnames=tuple(clip.fname for clip in clips),
        stretches=((0.0, None),) * N_CLIPS,
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
        scores=score(manifest.multi_hot(), predictions, rng=np.random.default_rng(0)),
        folds=(FoldScore("1", 3, 0.75, None), FoldScore("2", 3, 0.5, None)),
        held_out=held_out,
        judged=held_out.judged(method="none"),
        calibration=calibration,
        thresholds=np.array([0.25, np.nan, np.nan]),
        epochs=(),
        learnt=held_out,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        trained = Trained(tmp_path_factory.mktemp("bank"))
        trained.store.onnx_file(trained.values[0])
        yield trained


@pytest.fixture
def record():
    return make_lesson()


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "sub" / "my model ü"
    trained.pack(output, make_lesson())
    return output


@pytest.fixture
def no_export(monkeypatch, bundle):
    """The exporter takes a second: give what it gave before."""
    monkeypatch.setattr(packing, "export_tagger", lambda *_, **__: shutil.copy(bundle / "model.onnx", _[-1]))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_has_its_files_and_nothing_lies_beside_it(bundle):
    assert set(contents(bundle)) == FILES
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


def test_a_bundle_can_be_read_by_others(bundle):
    assert bundle.stat().st_mode & 0o055 == 0o055
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in bundle.iterdir())


def test_weights_load_strictly_and_give_the_exported_probabilities(bundle, trained):
    torch.manual_seed(9)
    tagger = Tagger(FeatureStore(Path("unused"), RECIPE, FRONT_END).extractor, build_head("linear", 960, 3)).eval()
    tagger.load_state_dict(load_file(bundle / "weights.safetensors"))
    with torch.inference_mode():
        expected = torch.sigmoid(tagger(torch.from_numpy(trained.values[1][None])))[0]
    np.testing.assert_allclose(RuntimeTagger(bundle).probabilities_of_input(trained.values[1]), expected, atol=1e-5)


def test_spectag_json_says_what_was_learnt_from_what(bundle, record, trained):
    info = read_info(bundle)
    assert info.labels == LABELS
    assert info.front_end == FRONT_END
    assert (info.backbone.name, info.backbone.features, info.backbone.head) == ("scratch", "all", "linear")
    assert info.backbone.pretrained_on == "nothing"
    assert info.backbone.weights_sha256 == trained.store.weights_sha256
    assert (info.data.name, info.data.n_clips) == ("train.csv", N_CLIPS)
    assert info.data.n_clips_per_label == (3, 2, 1)
    assert set(info.versions) == {"python", "spectag", "torch", "onnxruntime", "numpy"}
    assert info.metrics["lwlrap"] == pytest.approx(record.scores.lwlrap)
    assert [fold["lwlrap"] for fold in info.metrics["folds"]] == [0.75, 0.5]


def test_spectag_json_is_json_for_strict_readers_too(bundle):
    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((bundle / "spectag.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["labels"] == list(LABELS)


def test_thresholds_that_could_not_be_fitted_are_half_and_marked(bundle):
    info = read_info(bundle)
    assert info.thresholds == (0.25, 0.5, 0.5)
    assert info.thresholds_fitted == (True, False, False)
    assert "| Bell | 3 | 0.25 |" in (bundle / "README.md").read_text(encoding="utf-8")
    assert "| Rain, heavy | 1 | 0.50 (not fitted) |" in (bundle / "README.md").read_text(encoding="utf-8")


def test_the_difference_to_torch_is_recorded_and_small(tmp_path, no_export, trained, record):
    difference = trained.pack(tmp_path / "model", record)
    assert 0 <= difference < 1e-4
    assert read_info(tmp_path / "model").onnx_difference == difference


def test_the_recipe_can_be_used_again(bundle):
    assert read_config(bundle / "recipe.toml", Recipe) == RECIPE


def fingerprint(trained, output, record):
    trained.pack(output, record)
    return read_info(output).data.fingerprint


def test_the_fingerprint_tells_other_labels_and_other_sounds_but_not_other_names(
    tmp_path, no_export, trained, record, bundle
):
    first = read_info(bundle).data.fingerprint
    clips = record.manifest.clips
    renamed = [replace(clip, path=Path("elsewhere"), fname=f"other {clip.fname}") for clip in clips]
    relabelled = [replace(clips[0], labels=LABELS[2:]), *clips[1:]]
    renamed, relabelled = (replace(record.manifest, clips=tuple(changed)) for changed in (renamed, relabelled))
    assert fingerprint(trained, tmp_path / "a", replace(record, manifest=renamed)) == first
    assert fingerprint(trained, tmp_path / "b", replace(record, manifest=relabelled)) != first
    assert fingerprint(trained, tmp_path / "c", replace(record, keys=("f" * 32, *record.keys[1:]))) != first


def test_without_held_out_clips_there_are_no_metrics_and_the_card_says_so(tmp_path, no_export, trained, record):
    trained.pack(tmp_path / "model", replace(record, scores=None, folds=(), thresholds=np.full(3, np.nan)))
    assert read_info(tmp_path / "model").metrics == {}
    assert "No clips were held out" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_random_weights_are_not_called_pretrained(tmp_path, no_export, trained, record):
    trained.pack(tmp_path / "model", record, recipe=Recipe(backbone="timm/test_resnet", pretrained=False))
    assert read_info(tmp_path / "model").backbone.pretrained_on == "nothing"


def test_epochs_are_written_as_a_table(tmp_path, no_export, trained, record):
    epochs = (Epoch(1, 0.75, 0.5, None, None), Epoch(2, 0.5, 0.25, 1.0, 0.125))
    trained.pack(tmp_path / "model", replace(record, epochs=epochs))
    with (tmp_path / "model" / "epochs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:5] == ["epoch", "train_loss", "train_lwlrap", "valid_loss", "valid_lwlrap"]
    assert [row[:5] for row in rows[1:]] == [["1", "0.75", "0.5", "", ""], ["2", "0.5", "0.25", "1.0", "0.125"]]


def test_a_new_bundle_takes_the_place_of_the_old_with_nothing_of_it(tmp_path, no_export, trained, record):
    trained.pack(tmp_path / "model", replace(record, epochs=(Epoch(1, 0.75, 0.5, None, None),)))
    trained.pack(tmp_path / "model", record)
    assert set(contents(tmp_path / "model")) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_of_a_link_what_it_points_to_is_replaced(tmp_path, no_export, trained, record):
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk")
    trained.pack(tmp_path / "model", record)
    assert (tmp_path / "model").is_symlink()
    assert set(contents(tmp_path / "disk")) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "model"]


@pytest.mark.parametrize("step", ["export_tagger", "save_file", "_onnx_difference", "write_info", "model_card"])
@pytest.mark.parametrize("is_there", [True, False], ids=["over an old one", "new"])
def test_ctrl_c_leaves_nothing_half_written_and_the_old_bundle_as_it_was(
    tmp_path, monkeypatch, no_export, bundle, trained, record, step, is_there
):
    def stop(*args, **options):
        raise KeyboardInterrupt

    if is_there:
        shutil.copytree(bundle, tmp_path / "model")
    monkeypatch.setattr(packing, step, stop)
    with pytest.raises(KeyboardInterrupt):
        trained.pack(tmp_path / "model", record)
    assert contents(tmp_path) == (
        {f"model/{name}": text for name, text in contents(bundle).items()} if is_there else {}
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"] * is_there


def test_ctrl_c_in_the_midst_of_replacing_brings_the_old_bundle_back(
    tmp_path, monkeypatch, no_export, bundle, trained, record
):
    shutil.copytree(bundle, tmp_path / "model")
    rename, targets = Path.rename, []

    def stop_at_the_second(path, target):
        targets.append(target)
        if len(targets) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        trained.pack(tmp_path / "model", record)
    assert contents(tmp_path / "model") == contents(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("write_info", OSError(28, "No space left on device")),
        ("save_file", SafetensorError("I/O error: No space left on device")),
    ],
)
def test_a_full_disk_is_an_error_that_names_the_bundle(tmp_path, monkeypatch, no_export, trained, record, step, error):
    def full(*args):
        raise error

    monkeypatch.setattr(packing, step, full)
    with pytest.raises(BundleError, match=r"model: the tagger can't be written: .*No space left on device"):
        trained.pack(tmp_path / "model", record)
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_that_differs_from_torch_is_refused(tmp_path, monkeypatch, no_export, trained, record):
    other = build_head("linear", 960, len(LABELS))  # not the one that was exported
    with pytest.raises(BundleError, match=r"model\.onnx differs from torch by \d\.\de[-+]\d+ in probability"):
        trained.pack(tmp_path / "model", record, tagger=Tagger(trained.store.extractor, other).eval())
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="holds something else than a tagger; choose another place for -o"):
        check_output(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(BundleError, match="is a file; a tagger is a folder"):
        check_output(tmp_path / "model")


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path):
    """Before the training that would have been for nothing."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"nothing can be written into .*file; choose another place for -o"):
        check_output(tmp_path / "file" / "new" / "model")


@pytest.mark.parametrize("here", [".", "../here"])
def test_the_folder_that_one_is_in_is_refused(tmp_path, monkeypatch, here):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(BundleError, match="is the folder you are in"):
        check_output(Path(here))


def test_a_new_an_empty_and_a_bundles_place_are_fine(tmp_path, bundle):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new" / "model", tmp_path / "empty", bundle):
        check_output(place)


def test_a_file_of_the_users_own_in_a_bundle_is_not_lost_with_it(tmp_path, bundle):
    shutil.copytree(bundle, tmp_path / "model")
    (tmp_path / "model" / "tags.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match=r"model: tags\.csv lies beside the tagger and would be lost"):
        check_output(tmp_path / "model")


def test_an_onnx_file_that_gives_nan_is_refused(tmp_path, no_export, trained, record):
    head = build_head("linear", 960, len(LABELS))
    torch.nn.init.constant_(head.linear.bias, torch.nan)
    with pytest.raises(BundleError, match=r"model\.onnx differs from torch by nan"):
        trained.pack(tmp_path / "model", record, tagger=Tagger(trained.store.extractor, head).eval())


# ------------------------------------------------------------------------------------------------ several networks

OTHER_MEL = MelConfig(sample_rate=22_050, n_fft=512, hop_length=200, n_mels=24, f_max=8000, std=20.0)
BLEND = EnsembleWeights((0.5, 0.25, 2.0), bias=-0.5)


def scratch_tagger(seed):
    """A network of random weights, batch normalisation and all."""
    torch.manual_seed(seed)
    tagger = Tagger(FeatureExtractor(build_backbone("scratch", pretrained=False), "all"), build_head("linear", 960, 3))
    for name, values in tagger.state_dict().items():
        if "running" in name:
            values.copy_(torch.rand_like(values) + 0.5)
    return tagger.eval()


class Three:
    """Three networks of one architecture: one hears as `Trained` does, two by another front end."""

    def __init__(self, folder, trained):
        rng = np.random.default_rng(2)
        lengths = (100, 5_000, 12_000, 3_000, 9_000, 16_000)  # samples at 16 kHz; the first makes a single frame
        self.files = [folder / f"klang {i}.wav" for i in range(N_CLIPS)]
        for path, n_samples in zip(self.files, lengths, strict=True):
            write_audio(path, rng.normal(0, 0.1, n_samples).astype(np.float32), 16_000)
        other = FrontEnd(mel=OTHER_MEL)
        self.members = [
            trained.member(inputs=self.inputs(FRONT_END)),
            *(
                trained.member(
                    front_end=other, tagger=scratch_tagger(seed), inputs=self.inputs(other), features_onnx=None
                )
                for seed in (1, 2)
            ),
        ]

    def inputs(self, front_end):
        return lambda i: front_end.input_of_waveform(front_end.read_waveform(self.files[i]))

    @torch.inference_mode()
    def logits(self, i):
        """Each network's logits of clip i by torch."""
        return [member.tagger(torch.from_numpy(member.inputs(i)[None])).numpy()[0] for member in self.members]


@pytest.fixture(scope="module")
def three(trained, tmp_path_factory):
    return Three(tmp_path_factory.mktemp("sounds"), trained)


@pytest.fixture(scope="module")
def ensemble(three, tmp_path_factory):
    """Their bundle, and how many of them had to be traced for it."""
    output, traced = tmp_path_factory.mktemp("out") / "drei", []
    trace = packing.trace_features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "trace_features", lambda *args: traced.append(args) or trace(*args))
        difference = pack(output, make_lesson(), three.members, BLEND)
    assert difference == read_info(output).onnx_difference <= 1e-4
    assert len(traced) == 1  # it takes seconds, and two are built alike
    return output


def test_several_networks_tag_as_the_blend_of_their_logits_in_torch(ensemble, three):
    tagger = RuntimeTagger(ensemble)
    for i, path in enumerate(three.files):
        expected = expit(sum(w * logits for w, logits in zip(BLEND.weights, three.logits(i), strict=True)) + BLEND.bias)
        np.testing.assert_allclose(tagger.tag(path).probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(tagger.probabilities(*read_audio(path)), expected, atol=1e-5)


def test_a_calibration_bends_a_single_network_in_its_file_and_several_after_they_were_blended(tmp_path, three):
    curves = (line(0.5, 0.1), line(2.0, -1.0), line(1.0, 3.0))
    calibration = Calibration(method="platt", curves=curves)
    for name, members, blend in (("one", three.members[:1], ONE_MODEL), ("three", three.members, BLEND)):
        pack(tmp_path / name, make_lesson(calibration), members, blend)
        tagger = RuntimeTagger(tmp_path / name)
        for i, path in enumerate(three.files):
            logits = sum(w * own for w, own in zip(blend.weights, three.logits(i), strict=False)) + blend.bias
            expected = expit(logits * [0.5, 2.0, 1.0] + [0.1, -1.0, 3.0])
            np.testing.assert_allclose(tagger.tag(path).probabilities, expected, atol=1e-5)
            answer = tagger.answer(*read_audio(path))
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
            np.testing.assert_allclose(answer.logits, logits, atol=1e-4)
    alone = open_session(tmp_path / "three" / "members" / "2" / "model.onnx", n_threads=1)
    inputs = three.members[1].inputs(0)[None]
    np.testing.assert_allclose(
        alone.run(["probabilities"], {"inputs": inputs})[0][0], expit(three.logits(0)[1]), atol=1e-5
    )


def test_held_out_predictions_lie_in_the_bundle(bundle, record):
    found = read_out_of_fold(bundle)
    assert found.keys == record.keys
    np.testing.assert_allclose(found.logits, record.held_out.logits, atol=1e-8)


def test_the_command_tags_with_several_networks_as_python_does(ensemble, three, run):
    done = run("tag", ensemble, *three.files, "--threshold", 0, "--format", "jsonl")
    assert done.status == 0
    tagger = RuntimeTagger(ensemble)
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
        own = member.tagger.state_dict()
        assert set(saved) == set(own)
        assert all(torch.equal(saved[name], own[name]) for name in own)


@pytest.mark.parametrize(
    "blend", [EnsembleWeights((0.75, 0.0), bias=-0.5), EnsembleWeights((0.0, 1.0)), EnsembleWeights((1.0, 0.0))]
)
def test_a_network_left_alone_is_a_single_tagger_with_the_blended_probabilities(tmp_path, three, record, blend):
    pack(tmp_path / "model", record, three.members[:2], blend)
    assert set(contents(tmp_path / "model")) == FILES
    kept = int(np.argmax(blend.weights))
    tagger, front_end = RuntimeTagger(tmp_path / "model"), three.members[kept].front_end
    assert (tagger.info.members, tagger.front_end) == ((), front_end)
    expected = expit(blend.weights[kept] * three.logits(5)[kept] + blend.bias)
    np.testing.assert_allclose(tagger.tag(three.files[5]).probabilities, expected, atol=1e-5)
    loaded = scratch_tagger(9)
    loaded.load_state_dict(load_file(tmp_path / "model" / "weights.safetensors"))
    with torch.inference_mode():
        by_torch = torch.sigmoid(loaded(torch.from_numpy(three.members[kept].inputs(5)[None])))[0]
    np.testing.assert_allclose(by_torch, expected, atol=1e-5)


def test_a_layer_norm_head_takes_up_weight_and_bias_too(trained):
    head = build_head("layer_norm", 960, 3)
    member = trained.member(tagger=Tagger(trained.store.extractor, head).eval())
    before = member.tagger(torch.ones(1, 1, 16, 9))
    [scaled], blend = packing._without_idle([member], EnsembleWeights((3.0,), bias=0.25))
    torch.testing.assert_close(scaled.tagger(torch.ones(1, 1, 16, 9)), 3 * before + 0.25)
    torch.testing.assert_close(member.tagger(torch.ones(1, 1, 16, 9)), before)
    assert blend == EnsembleWeights((1.0,))


def test_networks_without_weight_are_left_out_of_several(tmp_path, no_export, trained, record):
    members = [trained.member(weights_sha256=name) for name in "abc"]
    pack(tmp_path / "model", record, members, EnsembleWeights((0.5, 0.0, 0.25)))
    info = read_info(tmp_path / "model")
    assert [(m.folder, m.weight, m.backbone.weights_sha256) for m in info.members] == [
        ("members/1", 0.5, "a"),
        ("members/2", 0.25, "c"),
    ]
    assert sorted(path.name for path in (tmp_path / "model" / "members").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0), (0.0, 0.0)])
def test_weights_that_do_not_fit_the_members_are_told(tmp_path, three, record, weights):
    with pytest.raises(ValueError, match="need a weight for each of 2 members, not all 0"):
        pack(tmp_path / "model", record, three.members[:2], EnsembleWeights(weights))
    assert not list(tmp_path.iterdir())


def test_weights_of_other_epochs_lie_beside_the_taggers_own(tmp_path, no_export, trained, record):
    best = scratch_tagger(7)
    trained.pack(tmp_path / "model", record, other_weights={"best": best})
    saved = load_file(tmp_path / "model" / "best.safetensors")
    assert all(torch.equal(saved[name], values) for name, values in best.state_dict().items())
    check_output(tmp_path / "model")
    with pytest.raises(ValueError, match="other weights are best or last, got third"):
        trained.member(other_weights={"third": best})


def fail_at(monkeypatch, name, n_before):
    """Let a step of packing work so many times and then fail."""
    step, calls = getattr(packing, name), []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) > n_before:
            raise OSError(28, "No space left on device")
        return step(*args, **options)

    monkeypatch.setattr(packing, name, failing)


@pytest.mark.parametrize("step", ["export_tagger", "save_file"])
def test_a_failure_at_the_second_network_leaves_the_old_bundle(
    tmp_path, monkeypatch, no_export, bundle, trained, record, step
):
    shutil.copytree(bundle, tmp_path / "model")
    fail_at(monkeypatch, step, 1)
    with pytest.raises(BundleError, match="No space left on device"):
        pack(tmp_path / "model", record, [trained.member()] * 2, EnsembleWeights((0.5, 0.5)))
    assert contents(tmp_path / "model") == contents(bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_single_tagger_takes_the_place_of_several_networks_with_nothing_of_them(
    tmp_path, no_export, ensemble, trained, record
):
    shutil.copytree(ensemble, tmp_path / "model")
    trained.pack(tmp_path / "model", record)
    assert set(contents(tmp_path / "model")) == FILES


def test_weights_of_another_network_than_the_exported_are_refused(tmp_path, no_export, trained, record):
    members = [trained.member(), trained.member(tagger=scratch_tagger(5))]
    with pytest.raises(BundleError, match=r"model\.onnx differs from torch by"):
        pack(tmp_path / "model", record, members, EnsembleWeights((0.5, 0.5)))
    assert not list(tmp_path.iterdir())


def test_a_small_difference_that_a_large_weight_blows_up_is_refused(tmp_path, no_export, trained, record):
    head = copy.deepcopy(trained.head)
    head.linear.bias.data[0] += 2e-4
    near = trained.member(tagger=Tagger(trained.store.extractor, head).eval())
    pack(tmp_path / "model", record, [trained.member(), near], EnsembleWeights((0.5, 0.5)))
    with pytest.raises(BundleError, match=r"model\.onnx differs from torch by \d\.\de-03"):
        pack(tmp_path / "model", record, [trained.member(), near], EnsembleWeights((0.5, 50.0)))


@pytest.mark.parametrize("place", ["members/notes.txt", "members/2/notes.txt", "members/old/model.onnx"])
def test_a_file_of_the_users_own_among_the_networks_is_not_lost(tmp_path, ensemble, place):
    shutil.copytree(ensemble, tmp_path / "model")
    check_output(tmp_path / "model")
    (tmp_path / "model" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "model" / place).write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError, match=r"model: members/.* lies beside the tagger and would be lost"):
        check_output(tmp_path / "model")
