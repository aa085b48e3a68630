"""The stages of parameters, for small networks and a real one."""

import pytest
import torch
from torch import nn

from spectag.config.training import FinetuneConfig
from spectag.training.networks.backbones.base import Backbone, FeatureMaps
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor, TaggerNetwork, build_head
from spectag.training.networks.parameter_groups import optimizer_groups, parameters_by_stage

EXAMPLE = torch.zeros(1, 1, 8, 8)


class MadeByHand(Backbone):
    """Three convolutions in a row, a skip branch into the last, and an unused layer."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.third, self.second, self.first = (
            nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)
        )  # not in the order of use
        self.skip = nn.Conv2d(1, 1, 1)

    def feature_maps(self, inputs):
        first = self.first(inputs)
        second = torch.relu(self.second(first))
        return FeatureMaps((inputs, first, second, nn.functional.avg_pool2d(second, 2), self._third(inputs, second)))

    def _third(self, inputs, second):
        return self.third(second) + self.skip(inputs)


class WithEmbedding(MadeByHand):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(1, 3)

    def feature_maps(self, inputs):
        stages = super().feature_maps(inputs).stages
        return FeatureMaps(stages, self.hidden(stages[-1].mean(dim=(2, 3))))


def names_by_stage(network, *, kind="all", example=EXAMPLE):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    stages = parameters_by_stage(FeatureExtractor(network, kind), example)
    return [sorted(names[id(parameter)] for parameter in stage) for stage in stages]


def of(*layers):
    return sorted(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))


def tagger_of(network, n_features=8):
    return TaggerNetwork(FeatureExtractor(network, "all"), build_head("linear", n_features, 2))


@pytest.mark.parametrize("kind", ["all", "last"])
def test_each_layer_is_in_the_first_stage_that_depends_on_it_and_unused_ones_in_none(kind):
    assert names_by_stage(MadeByHand(), kind=kind) == [of("first"), of("second"), of("third", "skip")]


def test_layer_before_the_embedding_is_last_if_the_head_uses_the_embedding():
    assert names_by_stage(WithEmbedding())[-1] == of("hidden")
    assert of("hidden") not in names_by_stage(WithEmbedding(), kind="last")


def test_real_network_has_every_used_parameter_once_from_first_to_last_stage():
    network = build_backbone("mn04_audioset", pretrained=False)
    stages = names_by_stage(network, example=torch.zeros(1, 1, 128, 40))
    all_names = [name for stage in stages for name in stage]
    assert len(all_names) == len(set(all_names))
    unused = {name for name, _ in network.named_parameters()} - set(all_names)
    assert unused == set(of("network.classifier.5"))  # the labels of AudioSet
    for number, stage in enumerate(stages[:-1]):
        assert {name.split(".")[2] for name in stage} == {str(number)}
    assert stages[-1] == of("network.classifier.2")


def test_finding_the_stages_changes_no_statistics():
    network = build_backbone("scratch", pretrained=False)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    parameters_by_stage(FeatureExtractor(network, "all"), torch.randn(1, 1, 32, 32))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in network.parameters())


def rates(groups):
    return [group["lr"] for group in groups]


def test_learning_rates_decay_from_the_last_stage_to_the_first_and_the_head_has_its_own():
    config = FinetuneConfig(layer_decay=0.5, head_lr_multiplier=3.0)
    tagger = tagger_of(MadeByHand())
    groups = optimizer_groups(tagger, EXAMPLE, 0.1, config)
    assert rates(groups) == pytest.approx([0.025, 0.05, 0.1, 0.3])
    assert groups[-1]["params"] == list(tagger.head.parameters())


@pytest.mark.parametrize(
    ("n_trained", "learning"),
    [
        (0, []),
        (1, of("third", "skip")),
        (2, of("second", "third", "skip")),
        (9, of("first", "second", "third", "skip")),
    ],
)
def test_only_the_last_stages_and_the_head_are_trained(n_trained, learning):
    tagger = tagger_of(MadeByHand())
    groups = optimizer_groups(tagger, EXAMPLE, 0.1, FinetuneConfig(unfreeze=n_trained))
    found = [name for name, parameter in tagger.named_parameters() if parameter.requires_grad]
    assert sorted(found) == sorted([f"extractor.backbone.{name}" for name in learning] + of("head.linear"))
    in_groups = {id(parameter) for group in groups for parameter in group["params"]}
    assert in_groups == {id(parameter) for parameter in tagger.parameters() if parameter.requires_grad}
    assert rates(groups)[-2:] == [0.1, 0.1][: len(groups)]


def test_frozen_stages_can_be_trained_again():
    tagger = tagger_of(MadeByHand())
    optimizer_groups(tagger, EXAMPLE, 0.1, FinetuneConfig(unfreeze=1))
    again = optimizer_groups(tagger, EXAMPLE, 0.1, FinetuneConfig())
    assert len(again) == 4


def test_frozen_parameters_are_in_no_stage():
    network = MadeByHand()
    network.second.requires_grad_(False)
    assert names_by_stage(network) == [of("first"), of("third", "skip")]
