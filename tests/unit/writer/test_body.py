"""A body decoded value by value: what comes out is what `json` makes of the whole of it."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpark.domain.events import MAX_BODY_BYTES
from carpark.errors import InvalidBody
from writer.body import Body


class Dripping(io.BytesIO):
    """Gives its bytes in odd parts."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 + self.tell() % (7 if len(self.getbuffer()) < 10_000 else 9973))


def values(body: bytes, window: int = MAX_BODY_BYTES) -> tuple[bool, list[Any]]:
    """Decode a body from whole and from odd parts, which is the same."""
    one, other = Body(io.BytesIO(body), window), Body(Dripping(body), window)
    found = list(one)
    assert list(other) == found
    assert (one.is_list, one.size) == (other.is_list, other.size) == (one.is_list, len(body))
    return one.is_list, found


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=6) | json_values, st.sampled_from([None, 0, 3]), st.booleans())
def test_what_comes_out_is_what_json_makes_of_the_whole(value: Any, indent: int | None, ascii_only: bool) -> None:
    def text(value: Any) -> bytes:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    expected = value if isinstance(value, list) else [value]
    # As a whole, and through the smallest window that each value fits into.
    for window in (MAX_BODY_BYTES, max((len(text(each)) + 3 * len(str(each)) for each in expected), default=1)):
        assert values(text(value), window) == (isinstance(value, list), expected)


@given(st.binary(max_size=60) | st.text('[]{},:"0a \\n', max_size=30).map(str.encode))
def test_what_json_refuses_is_refused_and_nothing_else_is_raised(body: bytes) -> None:
    try:
        value = json.loads(body.decode(), parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        for window in (MAX_BODY_BYTES, 8, 1):
            with pytest.raises(InvalidBody):
                values(body, window)
    else:
        assert values(body)[1] == (value if isinstance(value, list) else [value])


@pytest.mark.parametrize("space", [b" ", b"\n", b"\r\n\t "])
def test_a_long_body_with_much_between_its_values_is_read(space: bytes) -> None:
    gap = space * (3 * MAX_BODY_BYTES // len(space))
    items = [{"n": number, "text": "\N{GRINNING FACE}" * 5000} for number in range(20)]
    body = gap.join([b"", b"[", *[b"%s%s," % (json.dumps(each).encode(), gap) for each in items[:-1]]])
    body += json.dumps(items[-1], ensure_ascii=False).encode() + gap + b"]" + gap
    assert values(body) == (True, items)


@pytest.mark.parametrize("end", [b"", b",", b"]]", b"] x", b"}", b":", b" 1]"])
def test_a_long_list_that_ends_wrongly_is_refused_after_its_values(end: bytes) -> None:
    body, found = Body(io.BytesIO(b"[" + b",".join([b'"abc"'] * 50_000) + end)), []
    with pytest.raises(InvalidBody, match="not JSON"):
        found += list(map(found.append, body))
    assert len(found) == 50_000


def test_a_value_as_long_as_a_body_of_one_may_be_is_read_and_a_longer_one_is_not() -> None:
    text = "x" * (MAX_BODY_BYTES - 2)
    assert values(b'[1,"%s",2]' % text.encode())[1] == [1, text, 2]
    with pytest.raises(InvalidBody, match=rf"a value of more than {MAX_BODY_BYTES} characters"):
        values(b'[1,"%s",2]' % (text.encode() * 3))
    with pytest.raises(InvalidBody, match=r"not JSON.*: Unterminated string starting at \(character 300000\)"):
        values(b" " * 300_000 + b'"abc')


def test_no_body_takes_more_memory_than_a_few_of_its_values() -> None:
    stream = io.BytesIO(b"[" + b",".join([b"[[],{}]"] * 50_000) + b"]")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert sum(1 for _ in Body(stream)) == 50_000
        assert tracemalloc.get_traced_memory()[1] - before < 12 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()
