"""Calibration inside an ONNX file."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from helpers.bundles import MEL, write_network
from spectag.errors import BundleError
from spectag.models.onnx_calibration import PREFIX, with_calibration
from spectag.scoring.calibration import Calibration, probabilities_of
from spectag.scoring.calibration_curves import Curve, line

STRAIGHT = Calibration(method="platt", curves=(line(2.0, -1.0), line(0.5, 3.0), line(1.0, 0.0)))
BENT = Calibration(
    method="isotonic",
    curves=(
        Curve(points=((-1.0, -2.0), (0.5, -1.0), (2.0, 4.0)), slope_below=0.5, slope_above=3.0),
        line(1.5, 0.25),
        Curve(points=((0.0, 0.0), (0.25, 6.0)), slope_below=2.0, slope_above=0.1),
    ),
)

slopes = st.floats(0.05, 20)
steps = st.lists(st.tuples(st.floats(0.01, 4), st.floats(0.01, 4)), max_size=12)
calibrations = st.lists(
    st.builds(
        lambda steps, below, above: Curve(
            points=tuple(map(tuple, np.cumsum([(-5, -6), *steps], axis=0).tolist())),
            slope_below=below,
            slope_above=above,
        ),
        steps,
        slopes,
        slopes,
    ),
    min_size=3,
    max_size=3,
).map(lambda curves: Calibration(method="isotonic", curves=tuple(curves)))


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("network") / "model.onnx"
    write_network(path)
    return onnx.load(path)


def answers(model: onnx.ModelProto, inputs: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(
        zip([output.name for output in session.get_outputs()], session.run(None, {"inputs": inputs}), strict=True)
    )


def sounds(n: int, spread: float = 1.0) -> np.ndarray:
    """Inputs whose logits are spread about 0."""
    return np.random.default_rng(0).normal(0, spread, (n, 1, MEL.n_mels, 5)).astype(np.float32)


@pytest.mark.parametrize("calibration", [STRAIGHT, BENT, None])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_the_file_gives_the_probabilities_of_numpy(network, calibration, spread):
    found = answers(with_calibration(network, calibration), sounds(50, spread))
    np.testing.assert_allclose(found["probabilities"], probabilities_of(found["logits"], calibration), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(calibrations)
def test_any_curves_are_the_same_in_the_file_and_in_numpy(network, calibration):
    found = answers(with_calibration(network, calibration), sounds(20))
    np.testing.assert_allclose(found["probabilities"], calibration(found["logits"]), atol=1e-6)


@pytest.mark.parametrize("calibration", [STRAIGHT, BENT, None])
def test_logits_features_and_a_batch_of_any_size_stay(network, calibration):
    model = with_calibration(network, calibration)
    before, after = answers(network, sounds(3)), answers(model, sounds(3))
    for name in ("logits", "features"):
        np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_allclose(answers(model, sounds(3)[1:2])["probabilities"], after["probabilities"][1:2], atol=1e-7)
    assert [output.name for output in model.graph.output] == [output.name for output in network.graph.output]


def test_earlier_calibration_is_replaced_and_leaves_nothing_behind(network):
    bent = with_calibration(network, BENT)
    assert any(node.name.startswith(PREFIX) for node in bent.graph.node)
    assert with_calibration(with_calibration(bent, STRAIGHT), BENT) == bent
    plain = with_calibration(bent, None)
    np.testing.assert_array_equal(
        answers(plain, sounds(4))["probabilities"], answers(network, sounds(4))["probabilities"]
    )
    assert [weight.name for weight in plain.graph.initializer] == [weight.name for weight in network.graph.initializer]
    assert len(plain.graph.node) == len(network.graph.node)


def test_the_network_that_was_given_is_not_changed(network):
    before = network.SerializeToString()
    with_calibration(network, BENT)
    assert network.SerializeToString() == before


def test_a_straight_calibration_costs_two_nodes(network):
    assert len(with_calibration(network, STRAIGHT).graph.node) == len(network.graph.node) + 2


def test_a_network_without_logits_is_refused(tmp_path):
    write_network(tmp_path / "old.onnx", with_logits=False)
    with pytest.raises(BundleError, match="gives probabilities, features, and calibration needs its logits"):
        with_calibration(onnx.load(tmp_path / "old.onnx"), STRAIGHT)


def test_a_calibration_of_other_labels_is_refused(network):
    with pytest.raises(BundleError, match="the network has 3 labels, and the calibration 1"):
        with_calibration(network, Calibration(method="platt", curves=(line(1, 1),)))


def test_what_another_result_needs_of_the_probabilities_stays():
    nodes = [
        helper.make_node("Sigmoid", ["inputs"], ["squeezed"]),
        helper.make_node("Neg", ["squeezed"], ["features"]),
        helper.make_node("Identity", ["inputs"], ["logits"]),
        helper.make_node("Identity", ["squeezed"], ["probabilities"]),
    ]
    shape = ["batch", 3]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("inputs", "features")]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("probabilities", "features", "logits")
    ]
    graph = helper.make_graph(nodes, "shared", values[:1], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    inputs = np.array([[0.0, 1.0, -1.0]], np.float32)
    found = answers(with_calibration(model, STRAIGHT), inputs)
    np.testing.assert_allclose(found["probabilities"], STRAIGHT(inputs), atol=1e-6)
    np.testing.assert_allclose(found["features"], -probabilities_of(inputs, None), atol=1e-6)
