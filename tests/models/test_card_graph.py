import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy.special import expit, logit

from helpers.card_networks import (
    MEL,
    N_CHANNELS,
    RATE,
    WINDOW,
    batchless_network,
    log_mel_network,
    run_network,
    waveform_card,
    waveform_network,
    write_card,
)
from spectag.audio.mel import compute_log_mel
from spectag.config.base import MelConfig
from spectag.config.network_cards import open_card
from spectag.errors import BundleError
from spectag.models.card_files import front_end_of
from spectag.models.card_graph import build_card_graph
from spectag.models.network_session import open_session

SOUND = (0.1 * np.random.default_rng(1).standard_normal(WINDOW)).astype(np.float32)
WAVEFORM = {"kind": "waveform", "sample_rate": RATE, "min_seconds": 0.05}


def compose(folder, *, kind="all"):
    """The composed network of the card in a folder, as a function of a waveform."""
    card = open_card(folder / "card.toml").card
    graph = build_card_graph(card, folder / "net.onnx", kind=kind)
    onnx.save(graph.model, folder / "composed.onnx")
    session, front_end = open_session(folder / "composed.onnx", n_threads=1), front_end_of(card)

    def run(waveform, *names):
        return session.run(list(names), {"inputs": front_end.input_of_waveform(waveform)[None]})

    return graph, run


@pytest.mark.parametrize("opset", [13, 18, 20])
def test_waveform_network_gives_its_own_embedding_and_logits(tmp_path, opset):
    model = waveform_network()
    if opset >= 18:  # axes of ReduceMean became an input
        model = onnx.version_converter.convert_version(model, opset)
    write_card(tmp_path, model, input=WAVEFORM, outputs={"embedding": "embedding", "logits": "logits"})
    graph, run = compose(tmp_path)
    features, logits, probabilities = run(SOUND, "features", "logits", "probabilities")
    expected = run_network(tmp_path, SOUND[None], "embedding", "logits", "probabilities")
    for found, wanted in zip((features, logits, probabilities), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert graph.group_sizes == (N_CHANNELS,)


def test_features_are_mean_and_deviation_of_frames_and_then_the_embedding(tmp_path):
    outputs = {"frames": "frames", "embedding": 1}  # by name and by position
    write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs=outputs)
    frames, embedding = run_network(tmp_path, SOUND[None], "frames", "embedding")
    graph, run = compose(tmp_path)
    expected = np.concatenate([frames.mean(axis=1), frames.std(axis=1), embedding], axis=1)
    np.testing.assert_allclose(run(SOUND, "features")[0], expected, atol=1e-4)
    assert graph.group_sizes == (2 * N_CHANNELS, N_CHANNELS)
    graph, run = compose(tmp_path, kind="last")
    np.testing.assert_allclose(run(SOUND, "features")[0], embedding, atol=1e-5)


def test_tensor_inside_the_network_can_be_an_output(tmp_path):
    write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs={"frames": "frames", "logits": "logits"})
    model = onnx.load(tmp_path / "net.onnx")
    kept = [output for output in model.graph.output if output.name == "logits"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, tmp_path / "net.onnx")
    assert compose(tmp_path)[0].group_sizes == (2 * N_CHANNELS,)


def test_logits_alone_are_the_features(tmp_path):
    write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs={"logits": "logits"})
    _, run = compose(tmp_path)
    features, logits = run(SOUND, "features", "logits")
    np.testing.assert_allclose(features, logits)


def test_features_of_a_network_of_probabilities_are_their_logits(tmp_path):
    write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs={"probabilities": "probabilities"})
    [logits] = run_network(tmp_path, SOUND[None], "logits")
    np.testing.assert_allclose(compose(tmp_path)[1](SOUND, "features")[0], logits, atol=1e-4)


def test_probabilities_become_logits_and_frames_are_pooled_as_parts_are(tmp_path):
    outputs = {"probabilities": "scores", "frames": 1}
    write_card(tmp_path, batchless_network(), input=WAVEFORM, outputs=outputs)
    scores, _ = run_network(tmp_path, SOUND, "scores", "frames")
    pooled = np.log(np.exp(logit(np.clip(scores, 1e-7, 1 - 1e-7)).astype(np.float64)).mean(axis=0))
    graph, run = compose(tmp_path)
    np.testing.assert_allclose(run(SOUND, "probabilities")[0][0], expit(pooled), atol=1e-4)
    assert graph.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1  # one sound at once


def test_softmax_keeps_probabilities_that_sum_to_one(tmp_path):
    write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs={"logits": "logits", "activation": "softmax"})
    [logits] = run_network(tmp_path, SOUND[None], "logits")
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(compose(tmp_path)[1](SOUND, "probabilities")[0], expected, atol=1e-5)


@pytest.mark.parametrize("frames_first", [True, False])
def test_log_mel_network_gets_its_axes_in_its_own_order(tmp_path, frames_first):
    write_card(
        tmp_path,
        log_mel_network(frames_first=frames_first),
        input={"kind": "log_mel", "mel": MEL},
        outputs={"embedding": "embedding"},
    )
    log_mel = compute_log_mel(SOUND, MelConfig(**MEL))
    [expected] = run_network(tmp_path, (log_mel.T if frames_first else log_mel)[None], "embedding")
    np.testing.assert_allclose(compose(tmp_path)[1](SOUND, "features")[0], expected, atol=1e-4)


def with_input(model, shape, kind, *nodes):
    """The same network with an input of another shape and type; the nodes lead from `own` to its old input."""
    model = onnx.version_converter.convert_version(model, 18)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("own", kind, shape))
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    return model


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_waveform_gets_a_channel_axis_and_the_type_of_the_network(tmp_path, kind):
    nodes = [
        helper.make_node("Cast", ["own"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["cast", "one"], ["sound"]),
    ]
    model = with_input(waveform_network(), ["batch", 1, "samples"], kind, *nodes)
    write_card(tmp_path / "other", model, input=WAVEFORM, outputs={"embedding": "embedding"})
    write_card(tmp_path / "plain", waveform_network(), input=WAVEFORM, outputs={"embedding": "embedding"})
    found, expected = (compose(tmp_path / name)[1](SOUND, "features")[0] for name in ("other", "plain"))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "axes", "nodes"),
    [
        (["batch", 1, "time", 24], None, [helper.make_node("Squeeze", ["own", "one"], ["features"])]),
        ([24, "batch", "time"], ["bands", "batch", "frames"], [(1, 2, 0)]),
        (["time", "batch", 24], ["frames", "batch", "bands"], [(1, 0, 2)]),
    ],
)
def test_log_mel_network_may_have_its_axes_in_any_order(tmp_path, shape, axes, nodes):
    nodes = [
        helper.make_node("Transpose", ["own"], ["features"], perm=node) if isinstance(node, tuple) else node
        for node in nodes
    ]
    model = with_input(log_mel_network(), shape, TensorProto.FLOAT, *nodes)
    settings = {"kind": "log_mel", "mel": MEL} | ({} if axes is None else {"axes": axes})
    write_card(tmp_path / "other", model, input=settings, outputs={"embedding": "embedding"})
    plain = {"kind": "log_mel", "mel": MEL}
    write_card(tmp_path / "plain", log_mel_network(), input=plain, outputs={"embedding": "embedding"})
    found, expected = (compose(tmp_path / name)[1](SOUND, "features")[0] for name in ("other", "plain"))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_fixed_number_of_frames_is_reached_by_silence_after_the_sound(tmp_path):
    write_card(
        tmp_path,
        log_mel_network(n_frames=41),
        input={"kind": "log_mel", "mel": MEL, "n_frames": 41},
        outputs={"embedding": "embedding"},
    )
    padded = np.pad(SOUND, (0, 40 * 160 - len(SOUND)))
    [expected] = run_network(tmp_path, compute_log_mel(padded, MelConfig(**MEL)).T[None], "embedding")
    np.testing.assert_allclose(compose(tmp_path)[1](SOUND, "features")[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"normalize": "peak", "scale": 0.25}, 0.25 * SOUND / np.abs(SOUND).max()),
        ({"normalize": "standard"}, (SOUND - SOUND.mean()) / SOUND.std()),
        ({"scale": 32_768.0}, 32_768 * SOUND),
    ],
)
def test_waveform_is_normalised_as_the_card_says(tmp_path, settings, expected):
    write_card(tmp_path, waveform_network(), input=WAVEFORM | settings, outputs={"embedding": "embedding"})
    [wanted] = run_network(tmp_path, expected[None], "embedding")
    np.testing.assert_allclose(compose(tmp_path)[1](SOUND, "features")[0], wanted, rtol=1e-4, atol=1e-4)


def test_silence_is_not_divided_by_zero(tmp_path):
    for normalize in ("peak", "standard"):
        write_card(
            tmp_path,
            waveform_network(),
            input=WAVEFORM | {"normalize": normalize},
            outputs={"embedding": "embedding"},
        )
        assert np.isfinite(compose(tmp_path)[1](np.zeros(WINDOW, np.float32), "features")[0]).all()


WITH_EMBEDDING = {"embedding": "embedding"}
FIXED = {"kind": "waveform", "sample_rate": RATE, "window_seconds": WINDOW / RATE}


@pytest.mark.parametrize(
    ("model", "tables", "reason"),
    [
        (
            waveform_network(),
            {"input": WAVEFORM, "outputs": {"embedding": "embeddings"}},
            "no output .embeddings.",
        ),
        (waveform_network(), {"input": WAVEFORM, "outputs": {"embedding": 9}}, "5 outputs, so none has the position 9"),
        (waveform_network(), {"input": WAVEFORM | {"name": "audio"}, "outputs": WITH_EMBEDDING}, "no input 'audio'"),
        (waveform_network(), {"input": WAVEFORM, "outputs": {"embedding": "frames"}}, "are outputs.frames"),
        (waveform_network(), {"input": WAVEFORM, "outputs": {"frames": "embedding"}}, "expected \\(1, n_frames"),
        (
            waveform_network(n_samples=WINDOW),
            {"input": WAVEFORM, "outputs": WITH_EMBEDDING},
            "only sounds of 4800 samples: set window_seconds = 0.3",
        ),
        (
            waveform_network(n_samples=9_600),
            {"input": FIXED, "outputs": WITH_EMBEDDING},
            "set window_seconds = 0.6",
        ),
        (waveform_network(batch=4), {"input": WAVEFORM, "outputs": WITH_EMBEDDING}, "only 4 sounds at once"),
        (
            log_mel_network(),
            {"input": {"kind": "log_mel", "mel": MEL | {"n_mels": 40}}, "outputs": WITH_EMBEDDING},
            "are not clear; give input.axes",
        ),
        (
            log_mel_network(),
            {
                "input": {"kind": "log_mel", "mel": MEL | {"n_mels": 40}, "axes": ["batch", "frames", "bands"]},
                "outputs": WITH_EMBEDDING,
            },
            "axis bands has the size 24, but 40 is needed",
        ),
        (
            waveform_network(),
            {"input": WAVEFORM | {"axes": ["samples"]}, "outputs": WITH_EMBEDDING},
            "its input has 2 axes, but the card says samples",
        ),
        (
            waveform_network(),
            {"input": WAVEFORM | {"sample_rate": 8_000, "min_seconds": 0.01}, "outputs": WITH_EMBEDDING},
            "cannot process an input as its card describes it",
        ),
    ],
)
def test_network_that_does_not_fit_its_card_is_refused_with_the_reason(tmp_path, model, tables, reason):
    write_card(tmp_path, model, **tables)
    with pytest.raises(BundleError, match=reason):
        compose(tmp_path)


def test_network_with_several_inputs_is_refused(tmp_path):
    model = waveform_network()
    model.graph.input.append(helper.make_tensor_value_info("is_longer", TensorProto.BOOL, ["batch"]))
    write_card(tmp_path, model, input=WAVEFORM, outputs=WITH_EMBEDDING)
    with pytest.raises(BundleError, match="the inputs 'sound', 'is_longer', but networks of one input"):
        compose(tmp_path)


def test_external_weights_must_be_in_the_folder_of_the_network(tmp_path):
    path = waveform_card(tmp_path)
    model = onnx.load(tmp_path / "net.onnx")
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert compose(tmp_path)[0].group_sizes == (N_CHANNELS,)
    for tensor in model.graph.initializer:
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"outside of its folder\. Such networks are not opened"):
        compose(tmp_path)
    assert path.exists()


def test_aliased_external_weights_that_would_fill_the_memory_are_refused(tmp_path):
    waveform_card(tmp_path)
    model = onnx.load(tmp_path / "net.onnx")
    with (tmp_path / "large.data").open("wb") as file:
        file.truncate(1_600_000_000)  # sparse
    for number in range(4):
        tensor = model.graph.initializer.add(name=f"large{number}", data_type=TensorProto.FLOAT)
        tensor.dims.append(400_000_000)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="large.data")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="more than 2 GB with its weights"):
        compose(tmp_path)


def test_external_weights_without_a_length_that_would_fill_the_memory_are_refused(tmp_path):
    waveform_card(tmp_path)
    model = onnx.load(tmp_path / "net.onnx")
    with (tmp_path / "large.data").open("wb") as file:
        file.truncate(1_100_000_000)  # sparse; without a length, all of it is read
    for number in range(2):
        tensor = model.graph.initializer.add(name=f"one{number}", data_type=TensorProto.FLOAT)
        tensor.dims.append(1)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="large.data")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="more than 2 GB with its weights"):
        compose(tmp_path)


def test_external_weights_must_be_a_file_of_the_folder_and_no_link(tmp_path):
    waveform_card(tmp_path / "card")
    network = tmp_path / "card" / "net.onnx"
    onnx.save(onnx.load(network), network, save_as_external_data=True, location="net.data", size_threshold=0)
    (tmp_path / "card" / "net.data").rename(tmp_path / "secret")
    with pytest.raises(BundleError, match=r"'net\.data', which cannot be read; copy it, too"):
        compose(tmp_path / "card")
    (tmp_path / "card" / "net.data").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match=r"'net\.data', which is a link; copy the file instead"):
        compose(tmp_path / "card")


def test_node_without_outputs_is_refused(tmp_path):
    model = onnx.version_converter.convert_version(waveform_network(), 18)
    model.graph.node.append(helper.make_node("Relu", ["maps"], []))
    write_card(tmp_path, model, input=WAVEFORM, outputs=WITH_EMBEDDING)
    with pytest.raises(BundleError, match="a node without outputs"):
        compose(tmp_path)


def test_network_of_dynamic_integers_gets_one_sound_at_once(tmp_path):
    model = onnx.version_converter.convert_version(waveform_network(), 18)
    scaled = helper.make_node("DynamicQuantizeLinear", ["embedding"], ["integers", "scale", "zero"])
    back = helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"])
    model.graph.node.extend([scaled, back])
    write_card(tmp_path, model, input=WAVEFORM, outputs={"embedding": "rounded"})
    graph, run = compose(tmp_path)
    assert graph.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1  # a louder sound has a larger scale
    assert run(SOUND, "features")[0].shape == (1, N_CHANNELS)


def test_file_that_is_no_network_is_refused(tmp_path):
    waveform_card(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"not a network" * 100)
    with pytest.raises(BundleError, match=r"not an ONNX file, or damaged.*copy or download it again"):
        compose(tmp_path)


def test_loops_and_unknown_opsets_are_refused(tmp_path):
    waveform_card(tmp_path)
    model = onnx.load(tmp_path / "net.onnx")
    model.opset_import[0].version = 999
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BundleError, match="it has opset 999"):
        compose(tmp_path)
    model.opset_import[0].version = 13
    model.graph.node.append(helper.make_node("Loop", ["frames", ""], ["looped"]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BundleError, match="loop"):
        compose(tmp_path)


def test_network_that_onnxruntime_refuses_is_named_by_its_card(tmp_path):
    write_card(tmp_path, waveform_network(), input=WAVEFORM, outputs={"embedding": "embedding"})
    model = onnx.version_converter.convert_version(waveform_network(), 18)
    model.graph.node[1].input[1] = "missing"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BundleError, match=r"^my-net: the network cannot process an input as its card describes it"):
        compose(tmp_path)
