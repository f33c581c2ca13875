"""What travels between processes, and what is refused."""

import datetime as dt
import gc
import pathlib
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker_node.distributed import SerializationFailed, wire

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


def there_and_back(value: Any) -> Any:
    return wire.decode([bytes(frame) for frame in wire.encode(value)])


@given(PLAIN)
def test_plain_values_come_back_equal_and_of_the_same_type(value: Any):
    back = there_and_back(value)

    assert back == value
    assert type(back) is type(value)


DTYPES = "uint8 int8 uint16 int16 int32 int64 float16 bfloat16 float32 float64 complex64 bool float8_e4m3fn float8_e5m2"


@pytest.mark.parametrize("name", DTYPES.split())
def test_a_tensor_of_any_dtype_comes_back_bit_for_bit(name: str):
    dtype = getattr(torch, name)
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.arange(12 * size, dtype=torch.uint8)
    if dtype is torch.bool:
        raw %= 2
    tensor = raw.view(dtype).reshape(3, 4)

    back = there_and_back({"deep": [tensor]})["deep"][0]

    assert back.dtype is dtype
    assert back.shape == (3, 4)
    assert torch.equal(back.reshape(-1).view(torch.uint8), raw)


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(2.5), torch.empty(0, 3), torch.arange(6).reshape(2, 3).T, torch.ones(2, requires_grad=True)],
    ids=["no dimensions", "empty", "strided", "with gradient"],
)
def test_tensors_of_odd_shapes_come_back_equal_and_writable(tensor: torch.Tensor):
    back = there_and_back(tensor)

    assert torch.equal(back, tensor.detach())
    back += 1


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
        np.zeros(2, dtype=[("x", "i4"), ("y", "f8", (2,))]),
        np.array(3.5),
        np.empty((0, 2), dtype=np.float16),
        np.array(["gr\u00fcn", ""]),
    ],
    ids=["big endian", "times", "structured", "no dimensions", "empty", "text"],
)
def test_arrays_come_back_with_dtype_shape_and_bits(array: np.ndarray):
    back = there_and_back(array)

    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_images_of_every_mode_keep_their_pixels(mode: str):
    gradient = Image.linear_gradient("L").resize((7, 5))
    image = Image.merge("LA", [gradient, gradient]) if mode == "LA" else gradient.convert(mode)

    back = there_and_back(image)

    assert (back.mode, back.size, back.tobytes()) == (image.mode, image.size, image.tobytes())
    assert back.getpalette() == image.getpalette()


def test_numpy_scalars_become_python_numbers():
    back = there_and_back({"loss": np.float32(0.5), "step": np.int64(3), "done": np.bool_(True), "name": np.str_("x")})

    assert back == {"loss": 0.5, "step": 3, "done": True, "name": "x"}
    assert [type(value) for value in back.values()] == [float, int, bool, str]


def test_paths_and_aware_times_come_back():
    value = {
        "path": pathlib.Path("/a b/\udcff"),
        "time": dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    }

    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "value",
    [
        {"content_type": "image/png", "url": "https://example.com/cat.png", "width": 1, "height": 1},
        {"content_type": "image/png", "data": b"not an image"},
        {"content_type": "application/tensor", "shape": [1], "dtype": "float32", "data": b"\x80\x04."},
        ["image", "RGB", 1, 1, b"", None],
    ],
)
def test_a_dict_that_looks_like_an_image_or_a_tensor_stays_a_dict(value: Any):
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"state": [1, {"lock": threading.Lock()}]}, "state[1].lock"),
        ((1, object()), "[1]"),
        ({"array": np.array([object()])}, "array"),
        ({"weights": torch.eye(2).to_sparse()}, "weights"),
        (lambda: 0, ""),
    ],
    ids=["lock", "object", "array of objects", "sparse tensor", "function"],
)
def test_what_cannot_travel_is_refused_with_its_path(value: Any, path: str):
    with pytest.raises(SerializationFailed) as refused:
        wire.encode(value)

    assert refused.value.path == path


def test_a_value_that_contains_itself_is_refused():
    value: list[Any] = []
    value.append(value)

    with pytest.raises(SerializationFailed, match="contains itself"):
        wire.encode(value)


def test_an_object_that_pickle_would_run_is_refused():
    class Harmful:
        def __reduce__(self) -> Any:
            return sys.exit, (1,)

    with pytest.raises(SerializationFailed, match="Harmful has no form on the wire"):
        wire.encode({"harmful": Harmful()})


def test_no_module_of_the_library_imports_a_pickler():
    package = pathlib.Path(wire.__file__).parent

    found = [
        (file.name, word)
        for file in package.glob("*.py")
        for word in ("import pickle", "cloudpickle", "multiprocessing", "marshal", "dill")
        if any(word in line for line in file.read_text().splitlines() if "import" in line)
    ]

    assert found == []


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"\xc1"], [b"\xc7\x01\x63\x00"], [b"\xc7\x01\x08\x00"], [b"\xc7\x03\x08\x92\x05\x90"]],
    ids=["nothing", "reserved byte", "foreign tag", "no header", "missing frame"],
)
def test_frames_that_are_not_ours_are_refused(frames: list[bytes]):
    with pytest.raises(SerializationFailed):
        wire.decode(frames)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_memory_that_a_value_was_read_from_goes_with_the_value():
    head, frame = wire.encode({"numbers": np.arange(1000)})
    memory = np.frombuffer(frame, np.uint8).copy()
    gone = weakref.ref(memory)
    value = wire.decode([head, memory.data])
    del memory

    assert gone() is not None
    assert value["numbers"][-1] == 999
    del value
    assert gone() is None
