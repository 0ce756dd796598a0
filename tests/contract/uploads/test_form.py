"""Forms in all shapes that clients send: what is taken as the clip, what is refused and how."""

import gc
import re
import weakref

import httpx
import pytest

from proxy.problems import Problem
from proxy.uploads.form import MAX_NAMES_SHOWN, Form, read_disposition
from tests.contract.proxy_process import Proxy
from tests.contract.raw_http import FORM_TYPE, field, multipart, part
from tests.contract.standin import StandIn

EXTENDED_NAME = "filename*=utf-8''%D1%84%D0%B0%D0%B9%D0%BB.wav"
PARTS: dict[str, tuple[str | bytes, ...]] = {
    "curl @": (
        'Content-Disposition: form-data; name="file"; filename="clip.wav"',
        "Content-Type: audio/wav",
    ),
    "curl <": ('Content-Disposition: form-data; name="file"',),
    "Dart, bytes": (
        "content-type: application/octet-stream",
        'content-disposition: form-data; name="file"',
    ),
    "Dart, text": (
        'content-disposition: form-data; name="file"',
        "content-type: text/plain; charset=utf-8",
        "content-transfer-encoding: binary",
    ),
    "Node form-data, buffer": (
        'Content-Disposition: form-data; name="file"',
        "Content-Type: application/octet-stream",
    ),
    "undici, blob": (
        'Content-Disposition: form-data; name="file"; filename="blob"',
        "Content-Type: application/octet-stream",
    ),
    "old urllib3": (f'Content-Disposition: form-data; name="file"; {EXTENDED_NAME}',),
    "continued file name": (
        "Content-Disposition: form-data; name=\"file\"; filename*0*=utf-8''%D1; filename*1=a",
    ),
    ".NET": ("Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav",),
    "OkHttp": (
        'Content-Disposition: form-data; name="file"; filename="a.m4a"',
        "Content-Type: audio/mp4",
        "Content-Length: 1",
    ),
    "Apache": (
        'Content-Disposition: form-data; name="file"; filename="a.m4a"',
        "Content-Type: application/octet-stream",
        "Content-Transfer-Encoding: Binary",
    ),
    "old Internet Explorer": (
        'Content-Disposition: form-data; name="file"; filename="C:\\clips\\"',
    ),
    "name last": ('Content-Disposition: form-data; filename="a"; size=3; name="file"',),
    "no blanks": ('Content-Disposition:form-data;name="file";filename="a"',),
    "many blanks": ('Content-Disposition:  form-data ;\tname = "file" ; filename = "a"',),
    "capitals": ('CONTENT-DISPOSITION: Form-Data; NAME="file"; FileName="a"',),
    "extended name": ("Content-Disposition: form-data; name*=utf-8''fi%6Ce",),
    "empty file name": ('Content-Disposition: form-data; name="file"; filename=""',),
    "marks in the file name": (
        'Content-Disposition: form-data; filename="a; name=\\"b\\";"; name="file"',
    ),
    "UTF-8": ('Content-Disposition: form-data; name="file"; filename="файл.wav"',),
    "Latin-1": (b'Content-Disposition: form-data; name="file"; filename="\xe9t\xe9.wav"',),
    "a wrong type": (
        'Content-Disposition: form-data; name="file"; filename="a"',
        "Content-Type: text/html",
    ),
    "a type that is none": ('Content-Disposition: form-data; name="file"', "Content-Type: ,;"),
    "8bit": ('Content-Disposition: form-data; name="file"', "Content-Transfer-Encoding: 8BIT"),
}
SIZES = [1, 8_191, 8_192, 8_193, 999_999, 1_000_001]


def send(proxy: Proxy, body: bytes, content_type: str = FORM_TYPE) -> httpx.Response:
    return proxy.post(content=body, headers={"Content-Type": content_type})


def clip_of(size: int) -> bytes:
    return (b"\r\n--b\r\n-" * (size // 8 + 1))[:size].replace(b"--b", b"--c")


@pytest.mark.parametrize("client", PARTS)
def test_the_part_named_file_is_the_clip_however_it_is_written(
    proxy: Proxy, standin: StandIn, client: str
) -> None:
    clip = clip_of(8_193)
    response = send(proxy, multipart(part(clip, *PARTS[client])))
    assert response.json() == {"us_confidence": 85.5}
    assert [seen.body for seen in standin.predictions] == [clip]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("client", ["curl @", "curl <", "old urllib3"])
def test_clips_of_all_sizes_come_in_whole(
    proxy: Proxy, standin: StandIn, client: str, size: int
) -> None:
    clip = clip_of(size)
    assert send(proxy, multipart(part(clip, *PARTS[client]))).status_code == 200
    assert [seen.body for seen in standin.predictions] == [clip]


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("client", PARTS)
def test_clips_of_all_sizes_and_spellings_come_in_whole(
    proxy: Proxy, standin: StandIn, client: str, size: int
) -> None:
    clip = clip_of(size)
    for position in range(3):
        parts = [field("lang", b"en"), field("note", b"x" * 8_192)]
        parts.insert(position, part(clip, *PARTS[client]))
        assert send(proxy, multipart(*parts)).status_code == 200
    assert [seen.body for seen in standin.predictions] == [clip] * 3


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("client", ["curl @", "curl <"])
def test_the_clip_may_stand_anywhere_among_texts(
    proxy: Proxy, standin: StandIn, client: str, position: int
) -> None:
    clip = clip_of(20_000)
    parts = [field("lang", b"en"), field("note", b"x" * 8_192)]
    parts.insert(position, part(clip, *PARTS[client]))
    assert send(proxy, multipart(*parts)).status_code == 200
    assert standin.predictions[0].body == clip


@pytest.mark.parametrize(
    ("boundary", "written"),
    [
        ("dart-http-boundary-Xy_+.9", "dart-http-boundary-Xy_+.9"),
        ("----WebKitFormBoundaryaUiVhiUXfFmuYUEc", "----WebKitFormBoundaryaUiVhiUXfFmuYUEc"),
        ("----formdata-undici-012345678901", "----formdata-undici-012345678901"),
        ("f0c1:a'(b)", '"f0c1:a\'(b)"'),
        ("b" * 70, "b" * 70),
    ],
)
def test_boundaries_of_all_kinds_are_found(proxy: Proxy, boundary: str, written: str) -> None:
    body = multipart(part(clip_of(9_000), *PARTS["curl <"]), boundary=boundary)
    for content_type in (
        f"multipart/form-data; boundary={written}",
        f"Multipart/Form-Data;charset=utf-8;boundary={written}",
    ):
        assert send(proxy, b"\r\n" + body + b"epilogue", content_type).status_code == 200


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_a_form_is_read_the_same_in_pieces_of_any_size(size: int) -> None:
    clip = b"\r\n--b\r--b-\r\n-" * 50
    body = multipart(field("note"), part(clip, *PARTS["old urllib3"]), field("lang"))
    form = Form(FORM_TYPE)
    for start in range(0, len(body), size):
        form.feed(body[start : start + size])
    assert form.clip() == clip


@pytest.mark.parametrize("first", ["text", "clip"])
def test_a_part_with_a_file_name_goes_before_a_text_of_the_same_name(
    proxy: Proxy, standin: StandIn, first: str
) -> None:
    parts = [field("file", b"clip.wav"), field("file", b"RIFF", "clip.wav")]
    if first == "clip":
        parts.reverse()
    assert send(proxy, multipart(*parts)).status_code == 200
    assert standin.predictions[0].body == b"RIFF"


@pytest.mark.parametrize(
    "parts",
    [
        (field("file", b"one", "a"), field("file", b"two", "b")),
        (field("file", b"one"), field("file", b"two")),
        (field("file", b"one", "a"), field("other", b"two", "b")),
        (field("file", b"clip.wav"), field("audio", b"RIFF", "clip.wav")),
        (field("audio", b"RIFF", "clip.wav"), field("file", b"clip.wav")),
    ],
)
def test_two_files_are_refused_whatever_their_names(
    proxy: Proxy, standin: StandIn, parts: tuple[bytes, ...]
) -> None:
    refusal = send(proxy, multipart(*parts)).json()
    assert refusal["code"] == "malformed_request"
    assert "more than one file" in refusal["detail"]
    assert standin.predictions == []


@pytest.mark.parametrize("client", ["curl @", "curl <", "old urllib3"])
def test_a_file_without_bytes_is_told_as_empty(proxy: Proxy, client: str) -> None:
    assert send(proxy, multipart(part(b"", *PARTS[client]))).json()["code"] == "empty_file"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["audio"], "it has 'audio'."),
        (["audio", "lang"], "it has 'audio', 'lang'."),
        (["audio", "audio"], "it has 'audio'."),
        (["File"], "it has 'File'."),
        (["file[]"], "it has 'file[]'."),
        (["f" * 300], f"it has '{'f' * 40}...'."),
        (["a'b\x07\x7fé"], "it has 'a?b???'."),
        ([""], "it has ''."),
        (list("abcdefg"), f"it has 'a', 'b', 'c', 'd' and {7 - MAX_NAMES_SHOWN} more."),
        ([], "it has no fields."),
    ],
)
@pytest.mark.parametrize("file_name", [None, "clip.wav"])
def test_a_wrong_field_name_is_told(
    proxy: Proxy, names: list[str], told: str, file_name: str | None
) -> None:
    parts = [field(name, b"x", None if rank else file_name) for rank, name in enumerate(names)]
    refusal = send(proxy, multipart(*parts)).json()
    assert refusal["code"] == "missing_file"
    assert refusal["detail"] == f"The form has no file in its field 'file'; {told}"


def test_a_long_text_under_another_name_is_told_where_clips_belong(proxy: Proxy) -> None:
    for size, code in ((8_192, "missing_file"), (8_193, "malformed_request")):
        refusal = send(proxy, multipart(field("audio", bytes(size)))).json()
        assert refusal["code"] == code
        assert "'audio'" in refusal["detail"]
        assert "'file'" in refusal["detail"]


@pytest.mark.parametrize("encoding", ["base64", "BASE64", "quoted-printable", "x-uuencode", "?\t"])
@pytest.mark.parametrize("ending", ["", '; filename="a"'])
def test_an_encoded_part_is_refused_by_the_name_of_its_encoding(
    proxy: Proxy, standin: StandIn, encoding: str, ending: str
) -> None:
    headers = (
        f'Content-Disposition: form-data; name="file"{ending}',
        f"Content-Transfer-Encoding: {encoding}",
    )
    response = send(proxy, multipart(part(b"UklGRg==", *headers)))
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_encoding")
    assert f"'{encoding.strip().lower()}'" in response.json()["detail"]
    assert standin.predictions == []


def test_how_a_text_beside_the_clip_is_encoded_is_no_matter(proxy: Proxy) -> None:
    text = part(
        b"eA==",
        'Content-Disposition: form-data; name="note"',
        "Content-Transfer-Encoding: base64",
    )
    assert send(proxy, multipart(text, field("file", b"RIFF"))).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body", "told"),
    [
        ("multipart/form-data", multipart(field("file")), "names no boundary"),
        ('multipart/form-data; boundary=""', multipart(field("file")), "names no boundary"),
        (f"multipart/form-data; boundary={'b' * 300}", b"", "too long"),
        (FORM_TYPE, multipart(field("file"), boundary="c"), "not where its boundary says"),
        (FORM_TYPE, multipart(field("file"))[:-5], "ends before its closing boundary"),
        (FORM_TYPE, multipart(part(b"x", "Content-Type: audio/wav")), "with a name"),
        (FORM_TYPE, multipart(part(b"x", "Content-Disposition: form-data")), "with a name"),
        (FORM_TYPE, multipart(*[field(f"f{n}") for n in range(9)]), "more than 8 fields"),
    ],
)
def test_a_broken_form_is_told_where_it_is_broken(
    proxy: Proxy, content_type: str, body: bytes, told: str
) -> None:
    refusal = send(proxy, body, content_type).json()
    assert refusal["code"] == "malformed_request"
    assert told in refusal["detail"]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", (None, False)),
        ("form-data", (None, False)),
        ("form-data; name", (None, False)),
        ('form-data; name=""', ("", False)),
        ('form-data; name="a;b=c"', ("a;b=c", False)),
        ('form-data; name="a; filename=x"', ("a; filename=x", False)),
        ('form-data; name="one"; name="two"', ("one", False)),
        ("form-data; name*=''%; filename*=%", ("%", True)),
        ("form-data; name=\"plain\"; name*=utf-8''other", ("plain", False)),
        (r'form-data; name="a\"b"; filename="c"', ('a"b', True)),
    ],
)
def test_a_disposition_is_read_as_it_is_written(
    header: str, wanted: tuple[str | None, bool]
) -> None:
    assert read_disposition(header) == wanted


def test_no_refusal_repeats_more_than_a_name() -> None:
    form = Form(FORM_TYPE)
    with pytest.raises(Problem) as refusal:
        form.feed(multipart(part(b"x" * 9_000, f'Content-Disposition: f; name="{"é" * 500}"')))
    assert re.fullmatch(r"[ -~]{1,200}", str(refusal.value))


@pytest.mark.parametrize("whole", [True, False])
def test_a_form_is_let_go_of_at_once(whole: bool) -> None:
    """Its bytes are not left to the garbage collector, which comes when it likes."""
    gc.disable()
    try:
        form = Form(FORM_TYPE)
        form.feed(multipart(field("file", bytes(1_000)))[: None if whole else 500])
        if whole:
            form.clip()
        gone = weakref.ref(form)
        del form
        assert gone() is None
    finally:
        gc.enable()
