"""The manifest of a bundle: every file with its size and hash, and a hash over the manifest itself."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from feedbackgen.errors import DataError, StoreError

SCHEMA = "feedbackgen/bundle"
FORMAT_VERSION = 1
NAME = "manifest.json"
READ_BYTES = 1 << 20
TEXTS = ("dataset_id", "task", "fingerprint", "licence")


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle holds, and where it came from."""

    dataset_id: str
    task: str
    fingerprint: str  # of the episodes' contents
    licence: str  # as the hub abbreviates it
    citation: str  # BibTeX, or nothing
    authors: tuple[str, ...]
    mirrors: tuple[str, ...]  # where else the bundle lies
    seeds: Mapping[str, Any]
    versions: Mapping[str, str]  # of the software that wrote the bundle
    facts: Mapping[str, Any]  # computed from the data; the card is made of them
    files: Mapping[str, FileEntry]  # path inside the bundle -> what is there; all but the manifest

    @property
    def n_bytes(self) -> int:
        return sum(entry.size for entry in self.files.values())


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as canonical JSON: the same manifest gives the same bytes, and a byte more or less shows."""
    content = {
        "schema": SCHEMA,
        "version": FORMAT_VERSION,
        **{name: getattr(manifest, name) for name in ("dataset_id", "task", "fingerprint", "licence", "citation")},
        "authors": list(manifest.authors),
        "mirrors": list(manifest.mirrors),
        "seeds": dict(manifest.seeds),
        "versions": dict(manifest.versions),
        "facts": dict(manifest.facts),
        "files": {path: [entry.size, entry.sha256] for path, entry in sorted(manifest.files.items())},
    }
    return _canonical(content | {"sha256": hashlib.sha256(_canonical(content)).hexdigest()})


def parse_manifest(text: bytes, place: str) -> Manifest:
    """Read a manifest and check it against itself.

    Args:
        place: where it lies, for messages.

    Raises:
        DataError: not a manifest, not the bytes that were written, or a path that leaves the bundle.
        StoreError: written by a newer release.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{place}: {NAME}: not valid JSON ({error}); pull or publish again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DataError(f"{place}: {NAME}: expected schema {SCHEMA!r}; is it a published bundle?")
    version = content.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise StoreError(
            f"{place}: bundle of format {version}, this release reads up to {FORMAT_VERSION}; upgrade feedbackgen"
        )
    stated = content.pop("sha256", None)
    if stated != hashlib.sha256(_canonical(content)).hexdigest() or text != _canonical(content | {"sha256": stated}):
        raise DataError(f"{place}: {NAME}: not the bytes that were published; pull or publish again")
    try:
        files = {path: FileEntry(int(size), str(digest)) for path, (size, digest) in content["files"].items()}
        for path in files:
            require_inside(path, place)
        texts = {name: content[name] for name in (*TEXTS, "citation")}
        if not all(isinstance(value, str) for value in texts.values()):
            raise TypeError("a text is no text")
        require_inside(content["dataset_id"], place)
        return Manifest(
            **texts,
            authors=tuple(content["authors"]),
            mirrors=tuple(content["mirrors"]),
            seeds=content["seeds"],
            versions=content["versions"],
            facts=content["facts"],
            files=files,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: {NAME}: incomplete ({error}); publish again") from error


def require_inside(path: str, place: str) -> None:
    """Refuse a path that is not plainly a file below the bundle's folder."""
    parts = PurePosixPath(path).parts
    plain = path and "\\" not in path and "\0" not in path and path == "/".join(parts) and not path.startswith("/")
    if not plain or any(part in (".", "..") for part in parts) or ":" in parts[0]:
        raise DataError(f"{place}: {NAME}: path {path!r} leaves the bundle; do not trust its source")


def file_entry(path: Path) -> FileEntry:
    """Size and hash of a file."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())


def differences(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Each file that is absent, additional or not as the manifest says: one line that begins with its path."""
    for path, expected in manifest.files.items():
        file = folder / path
        if not file.is_file():
            yield f"{path}: absent; expected {expected.size:,} bytes"
            continue
        found = file_entry(file)
        if found.size != expected.size:
            yield f"{path}: expected {expected.size:,} bytes, found {found.size:,}"
        elif found.sha256 != expected.sha256:
            yield f"{path}: expected sha256 {expected.sha256[:16]}…, found {found.sha256[:16]}…"
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        if not file.is_dir() and path not in manifest.files and path != NAME:
            yield f"{path}: not in the manifest; publish again to include it, or remove it"


def _canonical(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
