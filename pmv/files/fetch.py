"""Fetches the manifest's checkpoints into the cache: resumable, checked, and never without the licence's acceptance.

The HTTP part is requests with our own few lines for resuming: neither pooch nor huggingface_hub resumes a download from
an address of one's own (pooch 1.9 starts over, huggingface_hub resumes only from its own hub).
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from io import FileIO
from itertools import pairwise
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm

from pmv.errors import AssetsError, InputError, shown
from pmv.files.artifacts import copy_file, read_json, write_json
from pmv.files.locks import Taken, held, open_own
from pmv.files.manifest import Entry, cache_folder, cached, check, find_entry, record
from pmv.files.reading import fitted

_CHUNK = 1 << 14
_TIMEOUT = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
_MOST = 8 << 30
"""Bytes of a checkpoint whose size the manifest does not know."""
_MOST_PAGE = 1 << 20
"""Bytes of a page that is read for the form in it."""
_MAX_REDIRECTS = 5


def fetch(name: str, cache: str | Path | None = None, accept_licence: bool = False) -> Path:
    """The file of a checkpoint, downloaded where it is not here yet.

    An interrupted download leaves `FILE.part` in the cache, and the next call asks only for the rest of it.

    Args:
        cache: folder, see `cache_folder`.
        accept_licence: the user accepts the licence that the manifest names.

    Raises:
        InputError: no checkpoint is called that, or its licence was not accepted.
        AssetsError: it cannot be fetched, is not the published or pinned file, or the cache cannot be written.
    """
    entry = find_entry(name)
    path = cached(name, cache)
    if path is not None:
        return path
    if entry.shipped is not None:
        raise AssetsError(f"{entry.shipped}: gone, though it ships with pmv; install pmv again")
    if entry.url is None:
        raise AssetsError(f"{name}: its authors publish no address that pmv could download from; {entry.by_hand()}")
    if entry.needs_acceptance and not accept_licence:
        raise InputError(
            f"{name}: its licence ({entry.licence}, {entry.terms}) was not accepted and nothing was downloaded; read "
            f"it, then give --accept-licence"
        )
    folder = _writable(cache)
    path, part = folder / entry.file, folder / f"{entry.file}.part"
    # one lock for all of it: another process that got hold of the part while it becomes the checkpoint would write into
    # that
    with _disk_errors(folder), _fetching(entry, folder):
        if (found := cached(name, cache)) is not None:  # another process was faster
            return found
        _download(entry, part)
        try:
            check(entry, part, folder)
        except AssetsError:
            _remove(part)
            raise
        part.replace(path)
        _remove(part)
        record(entry, path, entry.url)
    return path


def place(name: str, source: Path, cache: str | Path | None = None) -> Path:
    """Copy a checkpoint that the user downloaded into the cache, checked like a download.

    Raises:
        InputError: no checkpoint is called that, or there is no such file.
        AssetsError: it is not the published or pinned file, or the cache cannot be written.
    """
    entry = find_entry(name)
    if entry.shipped is not None:
        raise InputError(f"{name}: it ships with pmv; there is nothing to place")
    if not source.is_file():
        raise InputError(f"{source}: no such file")
    folder = _writable(cache)
    check(entry, source, folder)
    path = folder / entry.file
    with _disk_errors(folder), _fetching(entry, folder):
        if not (path.exists() and path.samefile(source)):
            copy_file(source, path)
        record(entry, path, str(source.resolve()))
    return path


@contextmanager
def _fetching(entry: Entry, folder: Path) -> Iterator[None]:
    """Hold the place of a checkpoint in the cache."""
    lock = folder / f".{entry.file}.lock"
    try:
        with held(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Taken as error:
        raise AssetsError(f"{folder / entry.file}: another process is fetching {entry.name}; wait for it") from error


def licence_notice(entry: Entry) -> str:
    """What a user must read before a download: one or two sentences."""
    notice = f"{entry.title}: licence {entry.licence}, see {entry.terms}."
    if entry.licence == "non-commercial":
        return f"{notice} It may be used non-commercially only."
    if entry.licence == "unstated":
        return f"{notice} Its authors state no licence; without one, ask them before any use beyond private study."
    return notice


# --- the cache folder


def _writable(cache: str | Path | None) -> Path:
    folder = cache_folder(cache)
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Errors of the disk as one-line errors that say what helps."""
    try:
        yield
    except requests.RequestException:
        raise  # is an OSError too
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AssetsError(f"{folder}: the disk is full; make room and run the command again, it goes on") from error
        raise AssetsError(
            f"{folder}: the cache cannot be written ({error.strerror}); choose another folder with --cache or PMV_CACHE"
        ) from error


# --- the download


@dataclass(frozen=True)
class _Version:
    """What told one version of the file at an address from another: validator of RFC 9110 §8.8, and length."""

    validator: str | None
    total: int | None

    @classmethod
    def of(cls, response: requests.Response) -> "_Version":
        etag = response.headers.get("ETag", "")
        # a weak ETag must not be used to put ranges together (RFC 9110 §13.1.5)
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        return cls(validator, _total(response))


def _total(response: requests.Response) -> int | None:
    """Length of the whole file, where the response tells."""
    told = response.headers.get("Content-Range", "").strip()
    if match := re.fullmatch(r"bytes (?:[0-9]+-[0-9]+|\*)/([0-9]{1,400})", told):
        return int(match[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if response.status_code == 200 and re.fullmatch("[0-9]{1,400}", length) else None


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _download(entry: Entry, part: Path) -> None:
    """Complete `part`. Goes on by itself as long as every new attempt brings something."""
    with open_own(part, os.O_WRONLY | os.O_APPEND) as file, _session() as session:
        file.seek(0, os.SEEK_END)
        while True:
            before = file.tell()
            try:
                if _attempt(entry, session, file, part):
                    return
                reason = "the connection was cut"
            except requests.RequestException as error:
                reason = _reason(error)
            if file.tell() <= before:
                break
    kept = part.stat().st_size
    where = urlsplit(entry.url or "").hostname
    if kept:
        raise AssetsError(
            f"{entry.name}: {reason} after {kept / 1e6:.1f} MB; run the command again to go on from there, or "
            f"{entry.by_hand()}"
        )
    _remove(part)
    raise AssetsError(f"{entry.name}: {where} cannot be reached ({reason}); {entry.by_hand()}")


def _session() -> requests.Session:
    session = requests.Session()
    session.max_redirects = _MAX_REDIRECTS
    return session


def _attempt(entry: Entry, session: requests.Session, file: FileIO, part: Path) -> bool:
    """Ask for what is missing and append it to `file`; True when the file is complete."""
    have, known = file.tell(), None
    if have:
        try:
            known = fitted(read_json(_notes(part), follow=False), _Version, _notes(part))
        except InputError:
            pass  # what the part belongs to is not known: it is asked for again
    headers = {"Accept-Encoding": "identity"}
    if known is not None:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with _open(entry, session, headers) as response:
        version = _Version.of(response)
        most = version.total if version.total is not None else entry.size or _MOST
        if response.status_code != 416 and (most > _MOST or (entry.size is not None and most != entry.size)):
            raise _refused(entry, f"offers {shown(most)} bytes instead of {entry.size or f'at most {_MOST}'}")
        if response.status_code == 416 and have and version.total == have:
            return True
        goes_on = (
            response.status_code == 206
            and version == known
            and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        )
        if response.status_code != 200 and not goes_on:
            # another version than the one begun: ask for all of it
            file.truncate(0)
            file.seek(0)
            _notes(part).unlink(missing_ok=True)
            if known is None:
                raise requests.HTTPError("an answer to a question that was not asked")
            return _attempt(entry, session, file, part)
        if response.status_code == 200:
            # the server ignores ranges, or has another version
            file.truncate(0)
            file.seek(0)
            write_json(_notes(part), {"validator": version.validator, "total": version.total})
        _check_room(part, version.total, file.tell())
        with tqdm(
            total=version.total,
            initial=file.tell(),
            unit="B",
            unit_scale=True,
            desc=entry.file,
            disable=None,
        ) as bar:
            try:
                for chunk in response.iter_content(_CHUNK):
                    if file.tell() + len(chunk) > most:
                        raise _refused(entry, f"sends more than the {most / 1e6:.0f} MB that it may have")
                    _write(file, chunk)
                    bar.update(len(chunk))
            except AssetsError:
                file.truncate(0)  # whatever it is, it is not the checkpoint
                raise
        return version.total is None or file.tell() == version.total


def _open(entry: Entry, session: requests.Session, headers: dict[str, str]) -> requests.Response:
    """The response that carries the file; passes Google Drive's page that asks whether an unscanned file is wanted."""
    url, query = _direct(entry.url or ""), None
    for _ in range(2):
        response = session.get(url, params=query, headers=headers, stream=True, timeout=_TIMEOUT)
        if any(_is_downgrade(before.url, after.url) for before, after in pairwise([*response.history, response])):
            response.close()
            raise _refused(entry, "leads from an encrypted address to one that is not")
        if response.status_code not in (200, 206, 416):
            response.close()
            if response.status_code >= 500 or response.status_code == 429:
                raise requests.HTTPError(f"the server answers {response.status_code} {shown(response.reason)}")
            raise AssetsError(
                f"{entry.name}: {urlsplit(url).hostname} answers {response.status_code} {shown(response.reason)}; "
                f"{entry.by_hand()}"
            )
        if not response.headers.get("Content-Type", "").startswith("text/html"):
            return response
        form = _DownloadForm()
        form.feed(response.raw.read(_MOST_PAGE, decode_content=True).decode("utf-8", "replace"))
        response.close()
        if form.action is None:
            break
        url, query = urljoin(url, form.action), form.values
    raise AssetsError(f"{entry.name}: {urlsplit(url).hostname} shows a page instead of the file; {entry.by_hand()}")


def _refused(entry: Entry, what: str) -> AssetsError:
    return AssetsError(f"{entry.name}: {urlsplit(entry.url or '').hostname} {what}; {entry.by_hand()}")


def _is_downgrade(before: str, after: str) -> bool:
    """Whether a redirection leaves encryption: then anybody on the way may answer."""
    return urlsplit(before).scheme == "https" and urlsplit(after).scheme != "https"


def _write(file: FileIO, chunk: bytes) -> None:
    """All of it: an unbuffered file may take less, and says so."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _direct(url: str) -> str:
    """The download address behind Google Drive's page of one file; any other address as it is."""
    match = re.match(r"https://drive\.google\.com/file/d/([\w-]+)", url)
    return f"https://drive.google.com/uc?export=download&id={match[1]}" if match else url


class _DownloadForm(HTMLParser):
    """Finds the form of Google Drive's page "can't scan this file for viruses": where it leads, and what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.values: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action")
        elif tag == "input" and self.action is not None and values.get("name"):
            self.values[values["name"] or ""] = values.get("value") or ""


def _check_room(part: Path, total: int | None, have: int) -> None:
    if total is not None and shutil.disk_usage(part.parent).free < total - have:
        raise OSError(errno.ENOSPC, "no room")


def _reason(error: requests.RequestException) -> str:
    """The innermost cause, in a few words."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    text = str(error)
    if isinstance(error, requests.HTTPError):
        return text
    if "Name or service not known" in text or "NameResolution" in text or "name resolution" in text:
        return "its name is unknown; is this machine online?"
    if "refused" in text:
        return "connection refused"
    return "the connection was cut" if "Incomplete" in text or "broken" in text else type(error).__name__
