"""Archives that are fetched to where they are served from, and those that are not let in."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from aurea.versions.declared import DeclarationFaulty, DeclaredVersion
from aurea.versions.fetching import have_archive, main

CONTENT = b"archive" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An object store with one archive, behind a redirection."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/one.mar":
                self.send_response(302)
                self.send_header("Location", "/signed")
                self.end_headers()
                return
            self.send_response(200 if self.path == "/signed" else 403)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def declared(source: str, sha256: str = DIGEST) -> DeclaredVersion:
    return DeclaredVersion(archive="store/one.mar", sha256=sha256, source=source)


def test_an_archive_comes_from_an_address_once(store: str, tmp_path: Path) -> None:
    assert have_archive(declared(f"{store}/one.mar"), tmp_path)
    assert (tmp_path / "store" / "one.mar").read_bytes() == CONTENT
    assert not have_archive(declared("http://nowhere.invalid/"), tmp_path)


def test_an_archive_comes_from_a_shared_volume(tmp_path: Path) -> None:
    (tmp_path / "volume.mar").write_bytes(CONTENT)
    assert have_archive(declared("volume.mar"), tmp_path)
    assert have_archive(declared(str(tmp_path / "volume.mar")), tmp_path / "elsewhere")


@pytest.mark.parametrize("source", ["{store}/one.mar", "volume.mar"])
def test_what_has_another_digest_does_not_stay(store: str, tmp_path: Path, source: str) -> None:
    (tmp_path / "volume.mar").write_bytes(CONTENT)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "one.mar").write_bytes(b"older")
    with pytest.raises(DeclarationFaulty, match="Nothing has read it"):
        have_archive(declared(source.format(store=store), "0" * 64), tmp_path)
    assert {each.name: each.read_bytes() for each in (tmp_path / "store").iterdir()} == {
        "one.mar": b"older"
    }


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{store}/denied", "403"),
        ("http://127.0.0.1:1/one.mar", "cannot be fetched"),
        ("none.mar", "No such file"),
        ("", "no source of it is declared"),
    ],
)
def test_what_cannot_be_had_is_told(store: str, tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(DeclarationFaulty, match=told):
        have_archive(declared(source.format(store=store)), tmp_path)
    assert not (tmp_path / "store" / "one.mar").exists()


@pytest.mark.parametrize(("missing", "ends"), [("2.0", False), ("1.0", True)])
def test_only_a_default_that_cannot_be_had_ends_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, ends: bool
) -> None:
    for version in {"1.0", "2.0"} - {missing}:
        (tmp_path / f"{version}.mar").write_bytes(CONTENT)
    file = tmp_path / "versions.yaml"
    entries = "\n".join(
        f'  "{v}": {{archive: {v}.mar, sha256: "{DIGEST}"}}' for v in ("1.0", "2.0")
    )
    file.write_text(f'model: small\ndefault: "1.0"\nversions:\n{entries}\n')
    if ends:
        with pytest.raises(SystemExit) as ended:
            main([str(file)])
        assert "default 1.0 cannot be had" in str(ended.value.code)
    else:
        main([str(file)])
    said = capsys.readouterr()
    assert f"small/{missing}: " in said.err
    assert "its sha256 as declared" in said.out
