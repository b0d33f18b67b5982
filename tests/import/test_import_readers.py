# SPDX-License-Identifier: Apache-2.0
"""Reading of .npy streams, pickles and gin files, with the damage that they may have."""

import collections
import datetime
import gzip
import io
import pickle

import numpy as np
import pytest
from terrace_import import gin_syntax
from terrace_import.checkpoint import open_checkpoint
from terrace_import.errors import ImportFailure
from terrace_import.gin_config import ABSENT, GinConfig
from terrace_import.npy_stream import read_arrays
from terrace_import.safe_pickle import read_pickle
from trax_files import write_old_pickle


def stream(path, arrays):
    with gzip.open(path, "wb", compresslevel=0) as out:  # level 0, as Trax writes by default
        for array in arrays:
            np.save(out, array)
    return str(path)


def test_arrays_of_all_forms_are_read(tmp_path):
    r = np.random.default_rng(0)
    arrays = [
        np.float32(3.5),
        r.normal(size=(2, 3)).astype("<f4"),
        np.asfortranarray(r.normal(size=(3, 4, 2)).astype("<f4")),
        np.zeros((0, 5), "<f4"),
        np.array([0x3F80, 0xC000, 0x4049], "<u2"),
        r.normal(size=7),
    ]
    found = list(read_arrays(stream(tmp_path / "w.npy.gz", arrays)))
    assert [a.shape for a in found] == [(), (2, 3), (3, 4, 2), (0, 5), (3,), (7,)]
    assert all(a.dtype == np.float32 for a in found)
    for i in (0, 1, 2):
        assert np.array_equal(found[i], arrays[i])
    assert found[4].tolist() == [1.0, -2.0, 3.140625]  # bit patterns of bfloat16
    assert np.allclose(found[5], arrays[5])


def npy(descr="'<f4'", order="False", shape="(2,)", data=b"\0" * 8, version=1):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


@pytest.mark.parametrize(
    "content, message",
    [
        (npy(data=b"\0" * 7), "array 0: the file ends after 7 of 8 bytes"),
        (npy() + b"\x93NUM", "array 1: expected the start of a .npy file"),
        (npy() + b"garbage garbage", "array 1: expected the start of a .npy file"),
        (npy(descr="'|O'"), "elements of type '|O'"),
        (npy(descr="[('a', '<f4')]"), "elements of type"),
        (npy(shape="(-1,)"), "malformed .npy header"),
        (npy(shape="(10**9,)"), "malformed .npy header"),
        (npy(shape="(99999999999, 99999)"), "too large"),
        (npy(order="1"), "malformed .npy header"),
        (npy(shape="__import__('os').system('true')"), "malformed .npy header"),
    ],
)
def test_damaged_streams_name_the_array(tmp_path, content, message):
    path = tmp_path / "w.npy.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ImportFailure, match=r"w\.npy\.gz.*") as error:
        list(read_arrays(str(path)))
    assert message in str(error.value)


def test_truncated_gzip_is_an_error_at_any_byte(tmp_path):
    path = tmp_path / "w.npy.gz"
    whole = open(stream(path, [np.arange(50, dtype="<f4")] * 3), "rb").read()
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ImportFailure, match="truncated or damaged|file ends"):
            list(read_arrays(str(path)))
    path.write_bytes(b"")
    assert list(read_arrays(str(path))) == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_all_protocols_are_read(tmp_path, protocol):
    r = np.random.default_rng(1)
    flat = [r.normal(size=(3, 2)), np.float32(1.5), np.asfortranarray(r.normal(size=(4, 3)))]
    checkpoint = open_checkpoint(str(write_old_pickle(tmp_path / "model.pkl.gz", flat, protocol)))
    for found, expected in zip(checkpoint.arrays(), flat):
        assert np.array_equal(found, np.asarray(expected, np.float32))


def gzipped_pickle(path, content, protocol=4):
    path.write_bytes(gzip.compress(pickle.dumps(content, protocol)))
    return str(path)


def test_records_of_the_training_loop_are_ignored(tmp_path):
    content = {
        "flat_weights": [np.ones(2, np.float32)],
        "history": collections.defaultdict(list, {"a": [1]}),
        "input_signature": ("x", 3),
        "flag": np.float64(2),
        "order": collections.OrderedDict(k=1),
    }
    assert read_pickle(gzipped_pickle(tmp_path / "m.pkl.gz", content))["flat_weights"][0].tolist() == [1, 1]
    # As protocol 2 text: c module name, then an empty tuple applied to it.
    foreign = b"\x80\x02}U\x01hctrax.supervised.history\nHistory\n)\x81s."
    (tmp_path / "f.pkl.gz").write_bytes(gzip.compress(foreign))
    assert "h" in read_pickle(str(tmp_path / "f.pkl.gz"))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "builtins.getattr",
        "numpy.load",
        "subprocess.Popen",
        "datetime.date",
        "numpy.testing._private.utils.runstring",
    ],
)
def test_unexpected_globals_are_refused_by_name(tmp_path, name):
    module, function = name.rsplit(".", 1)
    path = tmp_path / "m.pkl.gz"
    path.write_bytes(gzip.compress(f"c{module}\n{function}\n(S'echo unsafe > {tmp_path}/made'\ntR.".encode()))
    with pytest.raises(ImportFailure, match=name.replace(".", r"\.")):
        read_pickle(str(path))
    assert not (tmp_path / "made").exists()


def test_pickles_that_lie_about_arrays_are_refused(tmp_path):
    whole = pickle.dumps({"flat_weights": [np.arange(6, dtype="<f4").reshape(2, 3)]}, 3)
    shorter = whole.replace(np.arange(6, dtype="<f4").tobytes(), np.arange(6, dtype="<f4").tobytes()[:-4] + b"", 1)
    for content in (
        whole[:-30],
        shorter,
        b"not a pickle",
        pickle.dumps([1]),
        pickle.dumps({"flat_weights": [np.array(["a"])]}),
    ):
        path = tmp_path / "m.pkl.gz"
        path.write_bytes(gzip.compress(content))
        with pytest.raises(ImportFailure, match=r"m\.pkl\.gz"):
            open_checkpoint(str(path))
    with pytest.raises(ImportFailure):
        open_checkpoint(gzipped_pickle(tmp_path / "d.pkl.gz", {"flat_weights": [datetime.date(2021, 3, 10)]}))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ImportFailure, match="nothing.weights.npy.gz"):
        open_checkpoint(str(tmp_path / "nothing.weights.npy.gz"))
    path = gzipped_pickle(tmp_path / "model.pkl.gz", {"flat_weights": 2})
    with pytest.raises(ImportFailure, match=r"expected .*model\.weights\.npy\.gz"):
        open_checkpoint(path)


GIN = """
import trax.models
include 'elsewhere.gin'
size = 3
also = %size
long = [
    @SelfAttention,   # a comment
    @enc/trax.layers.LSHSelfAttention(),
]
LSH.n = 7
a/LSH.n = 8
a/b/trax.layers.LSH.n = (1, -2.5, 'x' 'y', {0: [None, True]})
LSH.k = \\
   [%also]
old/macro.value = 1e-5
LSH.old = %old
LSH.unknown = %nowhere
LSH.again = 1
LSH.again = 2
"""


def test_gin_bindings_macros_and_scopes():
    gin = GinConfig()
    gin.read_text(GIN, "t.gin")
    assert gin.lookup("LSH", "n") == 7
    assert gin.lookup("LSH", "n", ("a",)) == 8 == gin.lookup("LSH", "n", ("a", "c"))
    assert gin.lookup("LSH", "n", ("a", "b")) == (1, -2.5, "xy", {0: [None, True]})
    assert gin.lookup("LSH", "k") == [3]
    assert gin.lookup("LSH", "old") == 1e-5
    assert gin.lookup("LSH", "again") == 2
    assert gin.lookup("LSH", "absent") is ABSENT
    with pytest.raises(ImportFailure, match="%nowhere is not defined, perhaps in elsewhere.gin"):
        gin.lookup("LSH", "unknown")
    gin.read_text("LSH.list = %long", "more")
    assert gin.lookup("LSH", "list") == [
        gin_syntax.Reference((), "SelfAttention"),
        gin_syntax.Reference(("enc",), "LSHSelfAttention", True),
    ]


def test_gin_includes_files_beside_it(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'\nF.x = %m\n")
    (tmp_path / "b.gin").write_text("m = 4\n")
    gin = GinConfig()
    gin.read_file(str(tmp_path / "a.gin"))
    assert gin.lookup("F", "x") == 4
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with pytest.raises(ImportFailure, match="includes itself"):
        GinConfig().read_file(str(tmp_path / "a.gin"))


@pytest.mark.parametrize(
    "text, line",
    [
        ("x =", 1),
        ("a b", 1),
        ("\n\nx = foo", 3),
        ("= 3", 1),
        ("A.b = @", 1),
        ("x = 1 2", 1),
        ("x = [1,,2]", 1),
        ("x = {1}", 1),
        ("x = open('f')", 1),
        ("x = -", 1),
    ],
)
def test_wrong_gin_names_file_and_line(text, line):
    with pytest.raises(ImportFailure, match=rf"bad\.gin, line {line}:"):
        GinConfig().read_text(text, "bad.gin")


def test_wrong_gin_brackets_and_macro_loops():
    with pytest.raises(ImportFailure, match="bad.gin"):
        GinConfig().read_text("x = [1", "bad.gin")
    gin = GinConfig()
    gin.read_text("a = %b\nb = [%a]\nF.x = %a", "t")
    with pytest.raises(ImportFailure, match="defined by itself"):
        gin.lookup("F", "x")


def test_npy_bytes_of_numpy_itself():
    """The stream reader against numpy's own header of version 2."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(3, dtype="<f4"), version=(2, 0))
    assert buffer.getvalue()[6] == 2
