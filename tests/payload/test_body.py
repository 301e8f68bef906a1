from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.payload.body import Body, Content
from mitml4.payload.budget import MAX_MEMORY, SessionPayload
from mitml4.payload.codings import MAX_INNER, STEP, parse, zstd_module

LIMIT = 4096
TEXT = b"".join(b"%d bottles on the wall\n" % number for number in range(100))
NOISE = random.Random(1).randbytes(3000)


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def zstd(data: bytes) -> bytes:
    compressed: bytes = zstd_module().compress(data)
    return compressed


ENCODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd,
}
CASES: dict[str, tuple[tuple[str, ...], bytes, bytes]] = {
    **{name: ((name,), encode(TEXT), TEXT) for name, encode in ENCODE.items()},
    **{f"{name}, noise": ((name,), encode(NOISE), NOISE) for name, encode in ENCODE.items()},
    **{f"{name}, empty": ((name,), encode(b""), b"") for name, encode in ENCODE.items()},
    "raw deflate": (("deflate",), raw_deflate(TEXT), TEXT),
    "gzip, br": (("gzip", "br"), brotli.compress(gzip.compress(TEXT)), TEXT),
    "br, zstd, gzip": (("br", "zstd", "gzip"), gzip.compress(zstd(brotli.compress(TEXT))), TEXT),
    "members of gzip": (("gzip",), gzip.compress(TEXT) + gzip.compress(b"more"), TEXT + b"more"),
    "frames of zstd": (("zstd",), zstd(TEXT) + zstd(b"more"), TEXT + b"more"),
    "a skippable frame of zstd": (
        ("zstd",),
        b"\x53\x2a\x4d\x18\x03\0\0\0abc" + zstd(TEXT),
        TEXT,
    ),
    "no coding": ((), TEXT, TEXT),
}
"""name: (codings, as sent, decoded)"""


def read(
    data: bytes,
    codings: tuple[str, ...] = (),
    *,
    cuts: tuple[int, ...] = (),
    limit: int = LIMIT,
    is_complete: bool = True,
    session: SessionPayload | None = None,
) -> Content:
    session = session or SessionPayload(limit=limit)
    free = session.free
    body = Body(session.of_flow(), codings)
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    for start, end in pairwise(edges):
        if body.is_wanted:
            body.write(data[start:end])
        else:
            body.skip(end - start)
    content = body.end(is_complete=is_complete)
    assert session.free == free, "all memory is given back"
    return content


def test_every_coding_is_undone_however_the_bytes_are_split() -> None:
    for name, (codings, sent, decoded) in CASES.items():
        for cuts in ((), tuple(range(len(sent))), (1, 2, 3), (len(sent) - 1,), (len(sent) // 2,)):
            assert read(sent, codings, cuts=cuts) == Content(
                data=decoded,
                size=len(sent),
                decoded_size=len(decoded),
                encoding=codings,
                truncated=False,
                fault=None,
            ), (name, cuts[:3])


def test_bodies_larger_than_the_buffers_of_a_decoder_are_read_to_their_end() -> None:
    """Near each multiple of what one call gives, and of the libraries' buffers."""
    sizes = [
        base + around
        for base in (STEP, 2 * STEP, 3 * STEP, 4 * STEP, 1 << 17)
        for around in (-17, -16, -1, 0, 1, 16, 232, 248, 300)
    ]
    for size in sizes:
        for block in (b"gr\xc3\xbc\xc3\x9fe %d\n", b"\0"):
            text = (block * size)[:size]
            for name, encode in ENCODE.items():
                sent = encode(text)
                for cuts in ((), (len(sent) // 2,), (len(sent) - 1,)):
                    content = read(sent, (name,), cuts=cuts, limit=1 << 18)
                    found = content.data == text, content.decoded_size, content.fault
                    assert found == (True, size, None), (name, size, cuts)


@given(
    case=st.sampled_from(sorted(CASES)),
    cuts=st.lists(st.integers(0, 4000), max_size=6).map(tuple),
    limit=st.sampled_from([1, 7, 100, len(TEXT) - 1, len(TEXT), len(TEXT) + 1]),
)
def test_a_body_is_shown_up_to_the_limit_however_it_is_split(
    case: str, cuts: tuple[int, ...], limit: int
) -> None:
    codings, sent, decoded = CASES[case]
    content = read(sent, codings, cuts=cuts, limit=limit)
    is_cut = len(decoded) > limit
    assert content.data == decoded[:limit]
    assert content.truncated is is_cut
    assert content.size == len(sent)
    assert content.decoded_size == (None if is_cut and codings else len(decoded))
    assert content.encoding == codings


BROKEN = {
    "not gzip": (("gzip",), TEXT, "gzip: incorrect header check"),
    "not deflate": (("deflate",), b"\x07" + NOISE, "deflate: invalid block type"),
    "not brotli": (("br",), b"\xff" * 50, "br: not valid"),
    "not zstd": (("zstd",), TEXT, "zstd: "),
    "a gzip that ends early": (("gzip",), gzip.compress(NOISE)[:-9], "gzip: it ends too early"),
    "a deflate of one byte": (("deflate",), b"x", "deflate: it ends too early"),
    "a brotli that ends early": (("br",), brotli.compress(NOISE)[:-2], "br: it ends too early"),
    "a zstd that ends early": (("zstd",), zstd(NOISE)[:-1], "zstd: it ends too early"),
    "a brotli with more after it": (("br",), brotli.compress(TEXT) + b"x", "br: "),
    "a wrong checksum": (
        ("gzip",),
        gzip.compress(TEXT)[:-8] + b"\1\2\3\4" + gzip.compress(TEXT)[-4:],
        "gzip: incorrect data check",
    ),
    "an unknown coding": (("compress",), TEXT, "unknown coding 'compress'"),
    "one unknown coding of two": (
        ("aws-chunked", "gzip"),
        gzip.compress(TEXT),
        "unknown coding 'aws-chunked'",
    ),
    "an inner coding": (("gzip", "br"), brotli.compress(TEXT), "gzip: incorrect header check"),
    "too many codings": (("gzip",) * 5, TEXT, "too many codings"),
}
"""name: (codings, as sent, the beginning of the fault)"""


def test_what_a_coding_does_not_fit_is_shown_as_it_came() -> None:
    for name, (codings, sent, fault) in BROKEN.items():
        for cuts in ((), tuple(range(len(sent))), (1, 40)):
            content = read(sent, codings, cuts=cuts)
            assert content.data == sent, name
            assert (content.encoding, content.truncated) == ((), False), name
            assert (content.size, content.decoded_size) == (len(sent), len(sent)), name
            assert (content.fault or "").startswith(fault), name


def test_bytes_after_the_end_of_a_coding_are_ignored_and_reported() -> None:
    for codings, sent in {
        ("gzip",): gzip.compress(TEXT),
        ("deflate",): zlib.compress(TEXT),
        ("zstd",): zstd(TEXT),
    }.items():
        for rest in (b"\0" * 20, b"<!-- a comment -->"):
            for cuts in ((), (len(sent),), tuple(range(len(sent + rest)))):
                content = read(sent + rest, codings, cuts=cuts)
                assert (content.data, content.encoding) == (TEXT, codings)
                assert content.fault == f"{codings[0]}: bytes after its end"


def test_a_body_that_is_cut_off_shows_what_came() -> None:
    for name, encode in ENCODE.items():
        content = read(encode(NOISE)[:2000], (name,), is_complete=False)
        assert content.truncated
        assert content.fault is None
        assert content.encoding == (name,)
        assert NOISE.startswith(content.data)
    assert read(TEXT[:100], is_complete=False).data == TEXT[:100]


def test_an_empty_body_has_no_coding_to_undo() -> None:
    for name in ENCODE:
        content = read(b"", (name,))
        assert (content.data, content.size, content.fault) == (b"", 0, None)


def bombs() -> dict[tuple[str, ...], bytes]:
    zeros = bytes(50_000_000)
    return {
        ("gzip",): gzip.compress(zeros, 9),
        ("deflate",): zlib.compress(zeros, 9),
        ("br",): brotli.compress(zeros, quality=5),
        ("zstd",): zstd(zeros),
        ("gzip", "gzip"): gzip.compress(gzip.compress(zeros, 9), 9),
    }


def test_a_bomb_ends_at_the_limit() -> None:
    for codings, bomb in bombs().items():
        for cuts in ((), tuple(range(0, len(bomb), 1000))):
            tracemalloc.start()
            content = read(bomb, codings, cuts=cuts, limit=65536)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert content.data == bytes(65536)
            assert (content.truncated, content.decoded_size) == (True, None)
            assert content.size == len(bomb)
            assert peak < len(bomb) + 2_000_000, codings


def test_a_bomb_that_decodes_to_nothing_ends_too() -> None:
    """Empty blocks, compressed: the outer coding decodes to much, the inner one to nothing."""
    empty_blocks = b"\x00\x00\x00\xff\xff" * 10_000_000
    outer = gzip.compress(empty_blocks, 9)
    fed = 0

    session = SessionPayload(limit=1000)
    body = Body(session.of_flow(), ("deflate", "gzip"))
    for at in range(0, len(outer), 100):
        if body.is_wanted:
            body.write(outer[at : at + 100])
            fed = at
    content = body.end(is_complete=True)
    assert (content.data, content.truncated) == (b"", True)
    assert fed < 2 * MAX_INNER * (1000 + STEP) // 500


def test_a_window_that_browsers_refuse_is_refused() -> None:
    module = zstd_module()
    options = {module.CompressionParameter.window_log: 27}
    data = random.Random(2).randbytes(10) * 2_000_000
    compressor = module.ZstdCompressor(options=options)
    sent = compressor.compress(data) + compressor.flush()
    content = read(sent, ("zstd",))
    assert content.encoding == ()
    assert content.fault


def test_field_values_list_codings_in_order() -> None:
    for values, codings in {
        (b"gzip",): ("gzip",),
        (b"GZip , br", b"zstd"): ("gzip", "br", "zstd"),
        (b"identity",): (),
        (b"", b", ,"): (),
        (b"\xff",): ("\N{REPLACEMENT CHARACTER}",),
    }.items():
        assert parse(values) == codings


def test_a_body_that_was_not_wanted_to_its_end_is_counted() -> None:
    session = SessionPayload(limit=10)
    body = Body(session.of_flow())
    body.write(b"0123456789ab")
    assert not body.is_wanted
    body.skip(1_000_000)
    content = body.end(is_complete=True)
    assert content == Content(
        data=b"0123456789",
        size=1_000_012,
        decoded_size=1_000_012,
        encoding=(),
        truncated=True,
        fault=None,
    )


def test_what_was_not_seen_ends_the_decoding() -> None:
    session = SessionPayload()
    body = Body(session.of_flow(), ("gzip",))
    sent = gzip.compress(NOISE)
    body.write(sent[:2000])
    body.skip(len(sent) - 2000)
    content = body.end(is_complete=True)
    assert NOISE.startswith(content.data)
    assert (content.size, content.truncated) == (len(sent), True)


@pytest.mark.parametrize("total", [0, 1, 1000])
def test_a_session_shows_no_more_than_its_total(total: int) -> None:
    session = SessionPayload(limit=LIMIT, left=total)
    for _ in range(3):
        content = read(TEXT, session=session)
        assert content.truncated
        assert TEXT.startswith(content.data)
        assert content.size == len(TEXT)
    assert session.left == 0


def test_the_memory_of_a_session_is_shared_among_its_flows() -> None:
    session = SessionPayload(limit=1000, free=10_000)
    greedy, modest = session.of_flow(), session.of_flow()
    bodies = [Body(greedy) for _ in range(50)]
    for body in bodies:
        body.write(bytes(1000))
    assert session.free >= 5000
    last = Body(modest)
    last.write(bytes(1000))
    assert last.end(is_complete=True).data == bytes(1000)
    contents = [body.end(is_complete=True) for body in bodies]
    assert [content.truncated for content in contents] == [False] * 5 + [True] * 45
    assert session.free == 10_000
    assert greedy.held == 0


@given(
    codings=st.lists(st.sampled_from(sorted(ENCODE)), min_size=1, max_size=3).map(tuple),
    data=st.binary(max_size=200),
    change=st.tuples(st.integers(0, 300), st.binary(max_size=3)),
    cuts=st.lists(st.integers(0, 300), max_size=4).map(tuple),
    limit=st.sampled_from([1, 50, 1000]),
    is_complete=st.booleans(),
)
def test_changed_bytes_of_any_coding_are_shown(
    codings: tuple[str, ...],
    data: bytes,
    change: tuple[int, bytes],
    cuts: tuple[int, ...],
    limit: int,
    is_complete: bool,
) -> None:
    for coding in codings:
        data = ENCODE[coding](data)
    place, bytes_there = change
    sent = data[:place] + bytes_there + data[place + 1 :]
    content = read(sent, codings, cuts=cuts, limit=limit, is_complete=is_complete)
    assert content.size == len(sent)
    assert len(content.data) <= limit
    if not content.encoding:
        assert content.data == sent[:limit]
        assert content.fault or not sent


def test_a_flow_that_is_over_holds_nothing() -> None:
    session = SessionPayload(free=1_000_000)
    flow = session.of_flow()
    body = Body(flow, ("gzip",))
    body.write(gzip.compress(NOISE))
    assert session.free < 1_000_000
    flow.close()
    assert session.free == 1_000_000
    body.end(is_complete=False)
    assert session.free == 1_000_000


def test_decoders_have_a_bound_too() -> None:
    session = SessionPayload(limit=LIMIT)
    flow = session.of_flow()
    sent = brotli.compress(NOISE)
    bodies = [Body(flow, ("br",)) for _ in range(1000)]
    for body in bodies:
        body.write(sent[:1500])
    assert flow.held <= MAX_MEMORY // 2
    for body in bodies:
        body.write(sent[1500:])
    contents = [body.end(is_complete=True) for body in bodies]
    decoded = [each for each in contents if each.encoding and not each.truncated]
    assert len(decoded) > 50
    assert {content.data for content in decoded} == {NOISE}
    assert contents[-1].fault == "not decoded: too many bodies at the same time"
    assert flow.held == 0
