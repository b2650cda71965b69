"""Folders of files on this machine or, named by a URL, in any storage that fsspec knows: list, hash, fetch, put.

Paths on this machine never go through fsspec. What is written appears under its name when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mixrl.errors import InputError

_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}
"""Storage where a file that is sent appears when it is whole. Elsewhere it gets its name once it is there."""
_PART = re.compile(r"\.{1,2}[^.].*\.[0-9a-f]{8}\.part(\..*)?")


@dataclass(frozen=True)
class Folder:
    """A folder: a path, or a URL ("s3://bucket/songs"). Files in it are named by their paths below it, with "/".

    What goes wrong in reading and writing is raised as the file system has it (OSError, mostly).
    """

    address: str

    @property
    def remote(self) -> bool:
        return "://" in self.address

    @property
    def path(self) -> Path:
        """Of a folder on this machine."""
        assert not self.remote
        return Path(self.address)

    def below(self, name: str) -> Folder:
        """A sub-folder."""
        return Folder(f"{self.address.rstrip('/')}/{name}" if self.remote else str(Path(self.address, name)))

    def files(self) -> list[str]:
        """All files in and below it, sorted; hidden ones and those in hidden folders are not looked at. Links to
        folders are not followed, as `load_session` does not. OSError where a folder cannot be looked into."""
        if self.remote:
            storage, root = _storage(self.address)
            storage.invalidate_cache()
            found = [path[len(root) :].strip("/") for path in storage.find(root)]
            return sorted(name for name in found if name and not any(map(skipped, name.split("/"))))

        def refuse(error: OSError) -> None:
            raise error

        found = []
        for folder, below, files in os.walk(self.path, onerror=refuse):
            below[:] = [name for name in below if not skipped(name)]
            at = Path(folder).relative_to(self.path)
            found += [(at / name).as_posix() for name in files if not skipped(name)]
        return sorted(found)

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            with self._opened(name) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def size(self, name: str) -> int | None:
        """Of a file, bytes; None where there is none."""
        try:
            if not self.remote:
                path = self.path / name
                return path.stat().st_size if path.is_file() else None
            storage, root = _storage(self.address)
            storage.invalidate_cache()
            return int(storage.info(f"{root}/{name}")["size"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def digest(self, name: str) -> str:
        """What a file holds, as "blake2b:" and 64 hexadecimal digits."""
        found = hashlib.blake2b(digest_size=32)
        with self._opened(name) as file:
            while block := file.read(1 << 20):
                found.update(block)
        return f"blake2b:{found.hexdigest()}"

    def version(self, name: str) -> str:
        """Of a file in a storage: other once the file is another, without reading it."""
        storage, root = _storage(self.address)
        return str(storage.ukey(f"{root}/{name}"))

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Copy files of a storage into a folder on this machine."""
        storage, root = _storage(self.address)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            storage.get_file(f"{root}/{name}", str(folder / name))

    def put(self, file: Path, name: str) -> None:
        """Send a file from this machine to a storage."""
        storage, root = _storage(self.address)
        storage.makedirs(root, exist_ok=True)
        protocols = {storage.protocol} if isinstance(storage.protocol, str) else set(storage.protocol)
        if protocols & _WHOLE:
            storage.put_file(str(file), f"{root}/{name}")
            return
        part = f"{root}/{_part_of(name)}"
        try:
            storage.put_file(str(file), part)
            storage.mv(part, f"{root}/{name}")
        except BaseException:
            if storage.exists(part):
                storage.rm_file(part)
            raise

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, and see that it is on the disk before it gets its name."""
        if self.remote:
            from tempfile import TemporaryDirectory

            with TemporaryDirectory(prefix="mixrl-") as folder:
                Path(folder, name).write_bytes(data)
                self.put(Path(folder, name), name)
            return
        from mixrl.audio import atomic_path

        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path / name, force=True) as part, part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _onto_disk(self.path)

    def settle(self, names: Iterable[str]) -> None:
        """See that files which were written are on the disk; a storage has done that by itself."""
        if not self.remote:
            for name in names:
                _onto_disk(self.path / name)
            _onto_disk(self.path)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if not self.remote:
            (self.path / name).unlink(missing_ok=True)
        elif self.size(name) is not None:
            storage, root = _storage(self.address)
            storage.rm_file(f"{root}/{name}")

    def sweep(self) -> None:
        """Remove what runs that were killed have left directly in it: files that never got their names."""
        if not self.remote:
            if self.path.is_dir():
                for path in self.path.iterdir():
                    if _PART.fullmatch(path.name) and path.is_file():
                        path.unlink(missing_ok=True)
            return
        storage, root = _storage(self.address)
        storage.invalidate_cache()
        try:
            for found in storage.ls(root, detail=False):
                if _PART.fullmatch(found.rstrip("/").rpartition("/")[2]):
                    storage.rm_file(found)
        except FileNotFoundError:
            return

    def _opened(self, name: str) -> BinaryIO:
        if not self.remote:
            return (self.path / name).open("rb")
        storage, root = _storage(self.address)
        return storage.open(f"{root}/{name}", "rb")


def skipped(name: str) -> bool:
    """Whether a file or folder of this name is not looked at: hidden, or left behind by a Mac's archives."""
    return name.startswith(".") or name == "__MACOSX"


def check_storage(address: str) -> None:
    """InputError for a URL of a storage that is not known, or that needs what is not installed."""
    if Folder(address).remote:
        _storage(address)


def copy_of(folder: Folder, names: Iterable[str], scratch: Path) -> Path:
    """A copy of files of a storage, in a new folder below ``scratch`` that has the same name: it may tell something."""
    name = folder.address.rstrip("/").rpartition("/")[2]
    copied = scratch / secrets.token_hex(4) / (name or "session")
    copied.mkdir(parents=True)
    try:
        folder.fetch(names, copied)
    except BaseException:
        shutil.rmtree(copied.parent, ignore_errors=True)
        raise
    return copied


def _storage(address: str) -> tuple[Any, str]:
    """The file system behind a URL, and the path there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InputError(f'{address}: needs fsspec: pip install "mixrl[cluster]"') from None
    try:
        storage, root = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(f"{address}: no such storage ({' '.join(str(error).split())}): check the URL") from None
    return storage, root.rstrip("/")


def _part_of(name: str) -> str:
    """A name for a file that is being written, like those of `audio.atomic_path`."""
    return f".{Path(name).stem[:200]}.{secrets.token_hex(4)}.part{Path(name).suffix}"


def _onto_disk(path: Path) -> None:
    """Of a folder that is its names. Windows opens no folders, and syncs only what may be written."""
    if path.is_dir():
        if os.name == "nt":
            return
        handle = os.open(path, os.O_RDONLY)
    else:
        handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
