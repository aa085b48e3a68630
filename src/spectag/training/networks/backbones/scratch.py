"""A small network without pretraining, for sounds unlike those of the pretrained networks."""

from torch import Tensor, nn

from spectag.training.networks.backbones.base import Backbone, FeatureMaps

WIDTHS = (32, 64, 128, 256)


class ScratchBackbone(Backbone):
    """Four blocks of two 3x3 convolutions, each halving frequency and time."""

    def __init__(self) -> None:
        super().__init__()
        blocks, n_in = [], 1
        for n_out in WIDTHS:
            blocks.append(_block(n_in, n_out))
            n_in = n_out
        self.network = nn.Sequential(*blocks)

    def feature_maps(self, inputs: Tensor) -> FeatureMaps:
        maps, stages = inputs.mean(dim=1, keepdim=True), []  # (batch, 1, height, width): mean of the colours
        for block in self.network:  # type: ignore[attr-defined]
            maps = block(maps)
            stages.append(maps)
        return FeatureMaps(tuple(stages))


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, ceil_mode=True),
    )
