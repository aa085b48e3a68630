from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from helpers.bundles import MEL, write_network
from spectag.errors import BundleError
from spectag.models.onnx_calibration import PREFIX, with_calibration
from spectag.scoring.calibration import Calibration, probabilities_of
from spectag.scoring.calibration_curves import CalibrationCurve, linear_curve

LINEAR = Calibration(method="platt", curves=(linear_curve(2.0, -1.0), linear_curve(0.5, 3.0), linear_curve(1.0, 0.0)))
CURVED = Calibration(
    method="isotonic",
    curves=(
        CalibrationCurve(points=((-1.0, -2.0), (0.5, -1.0), (2.0, 4.0)), slope_below=0.5, slope_above=3.0),
        linear_curve(1.5, 0.25),
        CalibrationCurve(points=((0.0, 0.0), (0.25, 6.0)), slope_below=2.0, slope_above=0.1),
    ),
)

slopes = st.floats(0.05, 20)
steps = st.lists(st.tuples(st.floats(0.01, 4), st.floats(0.01, 4)), max_size=12)
calibrations = st.lists(
    st.builds(
        lambda steps, below, above: CalibrationCurve(
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


def run(model: onnx.ModelProto, inputs: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(
        zip([output.name for output in session.get_outputs()], session.run(None, {"inputs": inputs}), strict=True)
    )


def make_inputs(n: int, spread: float = 1.0) -> np.ndarray:
    """Random inputs with logits around 0."""
    return np.random.default_rng(0).normal(0, spread, (n, 1, MEL.n_mels, 5)).astype(np.float32)


@pytest.mark.parametrize("calibration", [LINEAR, CURVED, None])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_probabilities_equal_those_of_numpy(network, calibration, spread):
    outputs = run(with_calibration(network, calibration), make_inputs(50, spread))
    np.testing.assert_allclose(outputs["probabilities"], probabilities_of(outputs["logits"], calibration), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(calibrations)
def test_random_curves_equal_those_of_numpy(network, calibration):
    outputs = run(with_calibration(network, calibration), make_inputs(20))
    np.testing.assert_allclose(outputs["probabilities"], calibration(outputs["logits"]), atol=1e-6)


def test_a_constant_that_only_a_branch_of_the_graph_uses_stays():
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=["n", 3])
    branch = helper.make_graph([helper.make_node("Add", ["inputs", "three"], ["sum"])], "branch", [], [value("sum")])
    nodes = [
        helper.make_node("If", ["yes"], ["logits"], then_branch=branch, else_branch=branch),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = [numpy_helper.from_array(np.array([True]), "yes"), numpy_helper.from_array(np.float32([3.0]), "three")]
    outputs = [value("probabilities"), value("logits")]
    graph = helper.make_graph(nodes, "branches", [value("inputs")], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    calibrated = run(with_calibration(model, LINEAR), np.zeros((1, 3), np.float32))
    assert list(calibrated) == ["probabilities", "logits"]
    np.testing.assert_array_equal(calibrated["logits"], [[3.0, 3.0, 3.0]])


@pytest.mark.parametrize("calibration", [LINEAR, CURVED, None])
def test_logits_features_and_batch_size_do_not_change(network, calibration):
    model = with_calibration(network, calibration)
    before, after = run(network, make_inputs(3)), run(model, make_inputs(3))
    for name in ("logits", "features"):
        np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_allclose(run(model, make_inputs(3)[1:2])["probabilities"], after["probabilities"][1:2], atol=1e-7)
    assert [output.name for output in model.graph.output] == [output.name for output in network.graph.output]


def test_earlier_calibration_is_replaced_completely(network):
    curved = with_calibration(network, CURVED)
    assert any(node.name.startswith(PREFIX) for node in curved.graph.node)
    assert with_calibration(with_calibration(curved, LINEAR), CURVED) == curved
    plain = with_calibration(curved, None)
    np.testing.assert_array_equal(
        run(plain, make_inputs(4))["probabilities"], run(network, make_inputs(4))["probabilities"]
    )
    assert [weight.name for weight in plain.graph.initializer] == [weight.name for weight in network.graph.initializer]
    assert len(plain.graph.node) == len(network.graph.node)


def test_given_network_is_not_changed(network):
    before = network.SerializeToString()
    with_calibration(network, CURVED)
    assert network.SerializeToString() == before


def test_linear_calibration_adds_two_nodes(network):
    assert len(with_calibration(network, LINEAR).graph.node) == len(network.graph.node) + 2


def test_network_without_logits_is_refused(tmp_path):
    write_network(tmp_path / "old.onnx", with_logits=False)
    with pytest.raises(BundleError, match="outputs probabilities, features, not logits and probabilities"):
        with_calibration(onnx.load(tmp_path / "old.onnx"), LINEAR)


def test_calibration_with_other_labels_is_refused(network):
    with pytest.raises(BundleError, match="the network has 3 labels, but the calibration has 1"):
        with_calibration(network, Calibration(method="platt", curves=(linear_curve(1, 1),)))


def test_nodes_that_other_outputs_need_are_kept():
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
    outputs = run(with_calibration(model, LINEAR), inputs)
    np.testing.assert_allclose(outputs["probabilities"], LINEAR(inputs), atol=1e-6)
    np.testing.assert_allclose(outputs["features"], -probabilities_of(inputs, None), atol=1e-6)
