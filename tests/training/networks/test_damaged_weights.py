"""Damaged weights.safetensors: found by its SHA-256, or else by its header."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.bundles import make_info
from spectag.errors import BundleError
from spectag.models.bundle import INFO_FILE, WEIGHTS_FILE, read_info, write_info
from spectag.training.networks.network import load_part


@pytest.fixture
def weights():
    return {"head.weight": torch.linspace(-1, 1, 12).reshape(3, 4), "head.bias": torch.zeros(3)}


@pytest.fixture
def bundle(tmp_path, weights):
    save_file(weights, tmp_path / WEIGHTS_FILE)
    write_info(tmp_path, make_info())
    return tmp_path


def load(bundle):
    head = nn.Linear(4, 3)
    load_part(head, "head", bundle)
    return head


def without_sha256(bundle):
    values = json.loads((bundle / INFO_FILE).read_text())
    (bundle / INFO_FILE).write_text(json.dumps(values | {"sha256": {}}))
    assert read_info(bundle).sha256 == {}


def damaged_versions(content):
    """Cut at every 1/50, and with a bit changed in every byte."""
    yield from (content[: len(content) * part // 50] for part in range(50))
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x41
        yield bytes(changed)


def test_any_damage_is_found_by_the_sha256(bundle, weights):
    assert torch.equal(load(bundle).weight, weights["head.weight"])
    content = (bundle / WEIGHTS_FILE).read_bytes()
    for damaged in damaged_versions(content):
        (bundle / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(BundleError, match=r"weights\.safetensors: not the file that belongs to this model"):
            load(bundle)


def test_damaged_header_of_weights_without_a_sha256_is_a_foreseen_error_of_one_line(bundle):
    content = (bundle / WEIGHTS_FILE).read_bytes()
    without_sha256(bundle)
    messages = []
    for damaged in damaged_versions(content):
        (bundle / WEIGHTS_FILE).write_bytes(damaged)
        try:
            load(bundle)
        except BundleError as error:
            messages.append(str(error))
    assert len(messages) > 50  # a changed number cannot be seen without a SHA-256
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    "header",
    [
        b'{"head.weight": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4]}}',
        b'{"head.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000000000000]}}',
        b'{"head.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"head.weight": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"head.weight": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b"[" * 10_000,
        b"{}",
        b"",
    ],
)
def test_hostile_header_is_a_foreseen_error(bundle, header):
    without_sha256(bundle)
    for n_bytes in (len(header), 2**62):
        (bundle / WEIGHTS_FILE).write_bytes(n_bytes.to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(BundleError, match=r"weights\.safetensors: cannot load the weights"):
            load(bundle)
