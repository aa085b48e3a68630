import json
import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone, write_network
from helpers.frames import write_frames_network
from spectag.audio.front_end import FrontEnd
from spectag.errors import BundleError
from spectag.models import bundle as bundle_module
from spectag.models import network_session
from spectag.models.bundle import INFO_FILE, ONNX_FILE, read_info, write_info
from spectag.models.frames_info import FRAMES_FILE
from spectag.models.network_session import open_session
from spectag.models.novelty import NoveltyInfo
from spectag.models.onnx_file import check_frames, check_frames_file, check_onnx_file
from spectag.models.tagger import Tagger


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose spectag.json contains the SHA-256 of its network."""
    folder = make_bundle(tmp_path / "model")
    write_info(folder, make_info())
    return folder


@pytest.fixture
def path(tmp_path):
    write_network(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def change(path, edit):
    """Save a network after a change of its model."""
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())


def graph(name="body", operator="Identity"):
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(operator, ["features"], ["v"])], name, [], [value])


# ------------------------------------------------------------------------------------------------ SHA-256


def test_sha256_of_the_network_is_stored_and_a_swapped_file_is_refused(bundle):
    assert set(read_info(bundle).sha256) == {ONNX_FILE}
    Tagger(bundle).probabilities(tone("low", 0.5), 16_000)
    write_network(bundle / ONNX_FILE, top_is_low=False)
    message = (
        r"model\.onnx: not the file that belongs to this model: SHA-256 is \w{64}, but .*; copy the complete model"
    )
    with pytest.raises(BundleError, match=message):
        Tagger(bundle).open()


def test_bundle_is_true_again_after_it_is_rewritten(bundle):
    write_network(bundle / ONNX_FILE, top_is_low=True, with_novelty=True)
    write_info(bundle, make_info())
    assert np.isfinite(Tagger(bundle).probabilities(tone("low", 0.5), 16_000)).all()


def test_networks_of_an_ensemble_and_weights_have_a_sha256(tmp_path):
    for name in (
        "members/1/model.onnx",
        "members/2/model.onnx",
        "members/2/weights.safetensors",
        "weights.safetensors",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    write_info(tmp_path, make_info())
    hashes = read_info(tmp_path).sha256
    assert len(set(hashes.values())) == len(hashes) == 4


def test_weights_in_a_file_of_their_own_have_a_sha256_too(bundle):
    path = bundle / ONNX_FILE
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{ONNX_FILE}.data", size_threshold=99)
    write_info(bundle, read_info(bundle))
    assert set(read_info(bundle).sha256) == {ONNX_FILE, f"{ONNX_FILE}.data"}
    Tagger(bundle).open()
    weights = (bundle / f"{ONNX_FILE}.data").read_bytes()
    (bundle / f"{ONNX_FILE}.data").write_bytes(bytes(len(weights)))
    with pytest.raises(BundleError, match=r"model\.onnx\.data: not the file that belongs to this model: SHA-256"):
        Tagger(bundle).open()


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode on Windows")
def test_path_that_is_not_utf_8_is_one_line(bundle):
    other = bundle.with_name(os.fsdecode(b"m\xff"))
    bundle.rename(other)
    with pytest.raises(
        BundleError, match=r"onnxruntime opens only paths that are UTF-8; rename the file or its folders"
    ):
        Tagger(other).open()


def test_bundle_without_sha256_can_be_opened(bundle):
    values = json.loads((bundle / INFO_FILE).read_text())
    del values["sha256"]
    (bundle / INFO_FILE).write_text(json.dumps(values))
    write_network(bundle / ONNX_FILE, top_is_low=True)
    assert np.isfinite(Tagger(bundle).probabilities(tone("low", 0.5), 16_000)).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_instead_of_a_network_is_refused_instead_of_waiting(bundle):
    (bundle / ONNX_FILE).unlink()
    os.mkfifo(bundle / ONNX_FILE)
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be read: not a regular file"):
        Tagger(bundle).open()


def test_huge_file_is_refused_unread(bundle, monkeypatch):
    monkeypatch.setattr(bundle_module, "MAX_NETWORK_BYTES", 100)
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be read: the file is too large"):
        Tagger(bundle).open()


# ------------------------------------------------------------------------------------------------ inputs and outputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "labels": (*LABELS, "higher"),
                "thresholds": (0.5,) * 4,
                "thresholds_fitted": (False,) * 4,
                "data": {"name": "a", "n_clips": None, "n_clips_per_label": None, "fingerprint": None},
            },
            r"(logits|probabilities) is a tensor\(float\) of shape any x 3, but .* of shape any x 4: the two files are",
        ),
        ({"novelty": NoveltyInfo(n_held_out=3)}, "but not novelty, which spectag.json needs"),
    ],
)
def test_network_of_another_model_is_refused(tmp_path, changes, message):
    folder = make_bundle(tmp_path / "model", make_info(**changes))
    write_network(folder / ONNX_FILE, top_is_low=True)
    with pytest.raises(BundleError, match=message):
        Tagger(folder).open()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda g: g.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", 48),
            "inputs is a .* any x 1 x 48",
        ),
        (lambda g: g.input[0].type.tensor_type.shape.dim.pop(), "(inputs is a|cannot open it)"),
        (lambda g: g.input.append(helper.make_tensor_value_info("more", 1, [1])), "has the inputs inputs, more"),
        (lambda g: g.output.pop(0), "but not probabilities, which"),
    ],
)
def test_network_with_other_inputs_or_outputs_is_refused(tmp_path, edit, message):
    folder = make_bundle(tmp_path / "model")
    change(folder / ONNX_FILE, lambda model: edit(model.graph))
    with pytest.raises(BundleError, match=message):
        Tagger(folder).open()


# ------------------------------------------------------------------------------------------------ structure


def outside(location):
    def edit(model):
        weights = model.graph.initializer[0]
        del weights.external_data[:]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)

    return edit


def set_shape(*shape):
    def edit(model):
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(shape)

    return edit


def add_node(operator, *, domain="", **attributes):
    def edit(model):
        model.graph.node.append(helper.make_node(operator, ["features"], ["more"], domain=domain, **attributes))

    return edit


def add_endless_loop(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**60), "n_excerpts"))
    model.graph.node.append(helper.make_node("Loop", ["n_excerpts", ""], ["more"], body=graph()))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (outside("/etc/passwd"), "its weights are in '/etc/passwd', outside of its folder"),
        (outside("../other.bin"), r"its weights are in '\.\./other\.bin', outside"),
        (outside("..\\other.bin"), "outside of its folder"),
        (outside(""), "outside of its folder"),
        (outside("gone.bin"), "its weights are in 'gone.bin', which cannot be read"),
        (outside("short.bin"), "a tensor claims 72 numbers, but the file has 4 bytes"),
        (set_shape(2**40), "a tensor claims too many numbers"),
        (set_shape(-1), "a tensor claims too many numbers"),
        (set_shape(*[2] * 9), "a tensor claims too many numbers"),
        (set_shape(100_000), "a tensor claims 100000 numbers, but the file has 288 bytes"),
        (add_node("PyOp", domain="com.stranger"), "it uses the operator 'com.stranger.PyOp'"),
        (add_node("RandomNormalLike"), "it uses the operator 'RandomNormalLike'"),
        (add_node("StringConcat"), "it uses the operator 'StringConcat'"),
        (add_node("If", then_branch=graph("a"), else_branch=graph("b")), "it uses the operator 'If'"),
        (add_node("Relu", body=graph()), "it contains a graph in an operator Relu"),
        (add_endless_loop, "it contains a loop that is not the one over the windows"),
        (lambda model: model.functions.add(name="f", domain="d"), "it contains functions"),
        (lambda model: model.graph.sparse_initializer.add(), "it contains sparse weights"),
        (lambda model: model.ClearField("graph"), "it has 0 graphs, expected one"),
    ],
)
def test_what_networks_of_spectag_never_contain_is_refused(path, edit, message):
    (path.parent / "short.bin").write_bytes(b"1234")
    change(path, edit)
    with pytest.raises(BundleError, match=rf"model\.onnx: .*{message}"):
        check_onnx_file(path)


def test_weights_in_a_file_beside_the_network_are_accepted(path):
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    check_onnx_file(path)
    (path.parent / "weights.bin").unlink()
    (path.parent / "weights.bin").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="which cannot be read"):
        check_onnx_file(path)


def test_too_many_nodes_are_refused(path, monkeypatch):
    monkeypatch.setattr("spectag.models.onnx_file.MAX_NODES", 3)
    with pytest.raises(BundleError, match="more than 3 nodes"):
        check_onnx_file(path)


def test_file_cut_anywhere_or_with_any_changed_byte_is_foreseen(tmp_path, rng):
    folder = make_bundle(tmp_path / "model")
    content = (folder / ONNX_FILE).read_bytes()
    expected = Tagger(folder).probabilities(tone("low", 0.5), 16_000)
    messages = []
    damaged = [content[: len(content) * part // 50] for part in range(50)]
    for position in rng.integers(len(content), size=200):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for number, changed in enumerate(damaged):
        copied = shutil.copytree(folder, tmp_path / str(number))
        (copied / ONNX_FILE).write_bytes(changed)
        try:
            probabilities = Tagger(copied).probabilities(tone("low", 0.5), 16_000)
        except BundleError as error:
            messages.append(str(error))
        else:
            assert probabilities.shape == expected.shape
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


# ------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(("n_cores", "gigabytes"), [(1, 4), (2, 4), (64, 96)])
def test_every_core_may_work_on_a_minute_of_sound_by_the_largest_network(monkeypatch, n_cores, gigabytes):
    monkeypatch.setattr(network_session, "n_usable_cores", lambda: n_cores)
    assert network_session.max_network_gigabytes() == gigabytes >= 1.2 * n_cores


def test_network_that_needs_terabytes_is_stopped(tmp_path):
    folder = make_bundle(tmp_path / "model")

    def plant(model):
        graph = model.graph
        graph.node[-1].output[0] = "real"
        graph.initializer.append(numpy_helper.from_array(np.array([2**40]), "size"))
        graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["constant"]))
        graph.node.append(helper.make_node("ReduceMax", ["constant"], ["largest"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["real", "largest"], ["probabilities"]))

    change(folder / ONNX_FILE, plant)
    with pytest.raises(BundleError, match=r"the networks need more than \d+ GB of memory; use shorter"):
        Tagger(folder).probabilities(tone("low", 0.5), 16_000)
    Tagger(make_bundle(tmp_path / "other")).probabilities(tone("low", 0.5), 16_000)  # the memory is free again


@pytest.mark.parametrize("changes", [{"n_mels": 48}, {"n_labels": 4}])
def test_network_of_frames_with_other_bands_or_labels_is_refused(tmp_path, changes):
    write_frames_network(tmp_path / FRAMES_FILE, **changes)
    session = open_session(tmp_path / FRAMES_FILE, n_threads=1)
    with pytest.raises(BundleError, match="the two files are of different models"):
        check_frames(tmp_path / FRAMES_FILE, session, FrontEnd(mel=MEL), 3)


def test_network_of_clips_is_none_of_frames(tmp_path):
    write_network(tmp_path / FRAMES_FILE)
    session = open_session(tmp_path / FRAMES_FILE, n_threads=1)
    with pytest.raises(BundleError, match=r"probabilities is a .* of shape any x 3"):
        check_frames(tmp_path / FRAMES_FILE, session, FrontEnd(mel=MEL), 3)


def test_weights_of_frames_are_in_one_file(tmp_path):
    write_frames_network(tmp_path / "single.onnx")
    model = onnx.load(tmp_path / "single.onnx")
    onnx.save(model, tmp_path / FRAMES_FILE, save_as_external_data=True, location="other.data", size_threshold=0)
    with pytest.raises(BundleError, match=r"other\.data"):
        check_frames_file(tmp_path / FRAMES_FILE)
