import collections
import io
import os
import pickle
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from spectag.models.torch_state_dict import read_torch_state_dict


def save(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    return tmp_path / "net.pt"


def write_pickle(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", content)
    return tmp_path / "net.pt"


def test_tensors_equal_those_read_by_torch(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    path = save(tmp_path, network.state_dict())
    tensors = read_torch_state_dict(path)
    expected = torch.load(path, weights_only=True)
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        assert tensors[name].dtype == values.numpy().dtype
        assert tensors[name].shape == tuple(values.shape)  # () for a count
        assert np.array_equal(tensors[name], values.numpy())


def test_tensors_may_share_a_storage(tmp_path):
    numbers = torch.arange(12.0)
    tensors = read_torch_state_dict(save(tmp_path, {"second": numbers[6:].view(2, 3), "first": numbers[:2]}))
    assert tensors["second"].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert tensors["first"].tolist() == [0, 1]


def test_tensor_in_another_order_of_its_numbers_is_read(tmp_path):
    numbers = torch.arange(6.0).view(3, 2)
    tensors = read_torch_state_dict(save(tmp_path, {"transposed": numbers.T}))
    assert tensors["transposed"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert not tensors["transposed"].flags.writeable


def save_old(tmp_path, content):
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    return tmp_path / "old.pth"


def test_file_from_before_version_1_6_is_read(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    state_dict = network.state_dict() | {"transposed": torch.rand(3, 2).T}
    tensors = read_torch_state_dict(save_old(tmp_path, state_dict))
    assert list(tensors) == list(state_dict)
    for name, values in state_dict.items():
        assert tensors[name].dtype == values.numpy().dtype
        assert np.array_equal(tensors[name], values.numpy())
        assert not tensors[name].flags.writeable


def test_code_in_an_old_file_is_not_run(tmp_path):
    path = save_old(tmp_path, {"weight": Harmful(str(tmp_path / "run"))})
    with pytest.raises(ValueError, match=r"it contains \w+\.mkdir, which is not a tensor"):
        read_torch_state_dict(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("n_bytes", [11, 15, 21, 100, 137, 300, -8, -1])
def test_cut_old_file_is_refused(tmp_path, n_bytes):
    path = save_old(tmp_path, {"weight": torch.zeros(1000), "bias": torch.zeros(3)})
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match="not a state dict of PyTorch: "):
        read_torch_state_dict(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"K\x02K\x03\x86", b"K\x02K\x09\x86", "a tensor of shape (2, 9) does not fit into its storage"),
        (b"cpuq\x06K\x06", b"cpuq\x06K\x7f", "its tensors are larger than the file"),
        (b"M\xe9\x03.", b"M\xe8\x03.", "it is not of version 1001 of the old format"),
        (b"\x80\x02]q\x00", b"\x80\x02}q\x00", "its pickle appends to something that is not a list"),
    ],
)
def test_damaged_old_file_is_refused(tmp_path, old, new, message):
    path = save_old(tmp_path, {"weight": torch.zeros(2, 3)})
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new).ljust(100, b"\0"))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_torch_state_dict(path)


def test_empty_tensor_keeps_its_shape(tmp_path):
    assert read_torch_state_dict(save(tmp_path, {"none": torch.zeros(0, 3)}))["none"].shape == (0, 3)


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_from_the_file_is_run(tmp_path):
    path = save(tmp_path, {"weight": Harmful(str(tmp_path / "run"))})
    with pytest.raises(ValueError, match=r"it contains \w+\.mkdir, which is not a tensor"):
        read_torch_state_dict(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(2, dtype=torch.float16)}, r"it contains torch\.HalfStorage, which is not a tensor"),
        ({"epoch": 7, "state": {"weight": torch.zeros(2)}}, "'epoch', 'state' is not a tensor"),
        (torch.nn.Linear(2, 2), "it contains torch.nn"),
        ([torch.zeros(2)], "not a state dict of PyTorch"),
        (7, "not a state dict of PyTorch"),
    ],
)
def test_anything_but_tensors_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_torch_state_dict(save(tmp_path, content))


class Numbers:
    """Represents a storage in a pickle."""


class Rebuilt:
    """A tensor with this offset, shape and strides."""

    def __init__(self, *layout):
        self.layout = layout

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (Numbers(), *self.layout, False, collections.OrderedDict())


def as_torch_pickles(content, n_values):
    """A pickle as torch writes it, but with any tensor."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", n_values) if isinstance(value, Numbers) else None

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def test_handmade_tensor_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", as_torch_pickles({"weight": Rebuilt(1, (1, 3), (9, 1))}, n_values=4))
        archive.writestr("net/data/0", np.arange(4, dtype=np.float32).tobytes())
    assert read_torch_state_dict(tmp_path / "net.pt")["weight"].tolist() == [
        [1, 2, 3]
    ]  # the stride of a single row is ignored


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "n_values"),
    [(0, (2, 3), (3, 1), 4), (3, (2,), (1,), 4), (0, (2,), (100_000,), 4), (0, (2,), (1, 1), 4), (0, (4,), (1,), 5)],
    ids=["too large", "past the end", "large strides", "surplus stride", "storage too small"],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, offset, shape, strides, n_values):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", as_torch_pickles({"weight": Rebuilt(offset, shape, strides)}, n_values))
        archive.writestr("net/data/0", np.arange(4, dtype=np.float32).tobytes())
    with pytest.raises(ValueError, match="not a state dict of PyTorch"):
        read_torch_state_dict(tmp_path / "net.pt")


@pytest.mark.parametrize("content", [b"", b"no zip", pickle.dumps({}), b"PK\x05\x06" + bytes(18)])
def test_other_file_is_refused(tmp_path, content):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(ValueError, match="not a state dict of PyTorch: "):
        read_torch_state_dict(tmp_path / "net.pt")


def test_truncated_file_is_refused(tmp_path):
    path = save(tmp_path, {"weight": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a state dict of PyTorch: "):
        read_torch_state_dict(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"garbage"])
def test_damaged_pickle_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="not a state dict of PyTorch"):
        read_torch_state_dict(write_pickle(tmp_path, content))


def short_text(text):
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def calls(module, name, *arguments):
    """A pickle that calls a function with texts."""
    return (
        b"\x80\x04" + short_text(module) + short_text(name) + b"\x93(" + b"".join(map(short_text, arguments)) + b"tR."
    )


DOUBLED = (
    b"\x80\x04("
    + short_text("a") * 2
    + b"t"
    + b"\x94"
    + b"".join(b"(h" + bytes([number]) + b"h" + bytes([number]) + b"t\x94" for number in range(200))
)
HOSTILE_PICKLES = {
    "os.system": calls("os", "system", "true"),
    "eval": calls("builtins", "eval", "1"),
    "exec as an old global": b"c__builtin__\nexec\n(V1\ntR.",
    "copyreg": calls("copyreg", "_reconstructor", "a"),
    "getattr": calls("builtins", "getattr", "a", "b"),
    "a call of a call": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
    "an ordered dict of arguments": b"\x80\x02ccollections\nOrderedDict\n(]tR.",
    "attributes of the class of dicts": b"\x80\x02ccollections\nOrderedDict\n}X\x04\x00\x00\x00evilK\x01sb.",
    "attributes of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\x00\x00\x00__defaults__K\x01sb.",
    "attributes of a type of numbers": b"\x80\x02ctorch\nFloatStorage\n}X\x05\x00\x00\x00names)sb.",
    "an instance": b"(icollections\nOrderedDict\n.",
    "an object": b"(ccollections\nOrderedDict\no.",
    "a new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id of another kind": b"\x80\x02(K\x01K\x02tQ.",
    "a text as a persistent id": b"Pevil\n.",
    "a giant integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
    "a giant text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "a giant frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".",
    "many digits": b"I" + b"9" * 100_000 + b"\n.",
    "doubled tuples as a result": DOUBLED + b".",
    "doubled tuples as a key": DOUBLED.replace(b"\x04(", b"\x04}(", 1) + b"K\x01s.",
    "deep nesting": b"\x80\x02" + b"(" * 90_000 + b"t" * 90_000 + b".",
    "an instruction too many": b"\x80\x02" + b"N0" * 10 + b".",
    "many instructions": b"\x80\x02" + b"N" * 210_000 + b".",
    "an empty stack": b"\x80\x02R.",
    "an unknown memo": b"\x80\x02h\x07.",
    "no end": b"\x80\x02}",
    "buffers": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("content", HOSTILE_PICKLES.values(), ids=HOSTILE_PICKLES.keys())
def test_hostile_pickle_is_refused_and_changes_nothing(tmp_path, content):
    dtype, ordered_dict = np.dtype("<f4"), dict(vars(collections.OrderedDict))
    tracemalloc.start()
    with pytest.raises(ValueError, match="not a state dict of PyTorch: ") as error:
        read_torch_state_dict(write_pickle(tmp_path, content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)
    assert (np.dtype("<f4"), dict(vars(collections.OrderedDict))) == (dtype, ordered_dict)


def test_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(ValueError, match="the archive is compressed"):
        read_torch_state_dict(tmp_path / "net.pt")


def test_archive_whose_files_overlap_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        archive.writestr("net/data/0", bytes(10_000))
        for number in range(1, 20):  # entries that point to the same bytes
            entry = zipfile.ZipInfo(f"net/data/{number}")
            entry.header_offset = archive.infolist()[1].header_offset
            entry.file_size = entry.compress_size = 10_000
            entry.CRC = archive.infolist()[1].CRC
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry
    with pytest.raises(ValueError, match="the files in the archive overlap"):
        read_torch_state_dict(tmp_path / "net.pt")


def test_archive_with_a_long_table_of_contents_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        for number in range(20):
            entry = zipfile.ZipInfo(f"net/data/{number}")
            entry.comment = bytes(60_000)
            archive.writestr(entry, b"")
        archive.filelist *= 4
    with pytest.raises(ValueError, match="the archive lists too many files"):
        read_torch_state_dict(tmp_path / "net.pt")


def test_tensors_of_one_storage_read_it_once(tmp_path):
    numbers = torch.zeros(2_500_000)
    path = save(tmp_path, {f"part {number}": numbers[number:][:10] for number in range(300)})
    tracemalloc.start()
    assert len(read_torch_state_dict(path)) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # the storage has 10 MB
