"""Which folders are sessions: each direct sub-folder of ROOT with audio in or below it.

A folder that holds, at any depth, folders with a ``mixrl.toml`` is looked at as ROOT is: each of these is a session,
and so is each other sub-folder with audio. Audio that lies beside them is left out with a warning, for a session is all
that is in and below its folder. What is below a folder with a ``mixrl.toml`` belongs to it, whatever is found there.
Hidden folders are not looked at, nor is OUT. A direct sub-folder may be a link, but not one that leads back into ROOT;
links to folders further down are not followed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from mixrl.errors import InputError
from mixrl.records import cause, is_audio, is_input
from mixrl.storage import Folder, skipped
from mixrl.wishes import FILE


def find_sessions(root: Folder, out: Folder) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the sessions below ``root`` in order, and warnings of audio that is in none. InputError where there
    are none, or ``root`` cannot be read."""
    try:
        files = list(_inputs_below(root, out))
    except InputError:
        raise
    except Exception as error:
        # a storage has errors of its own
        raise InputError(f"{root.address}: cannot be listed ({cause(error)}): check it and its permissions") from None
    names, loose = sessions_among(files)
    if not names:
        mend = "mix it with `mixrl mix`, or give the folder above" if loose else "give a folder of session folders"
        raise InputError(f"{root.address}: no sessions in it: {mend}")
    warnings = []
    for folder, count in loose.items():
        where = folder or root.address
        warnings.append(f"{where}: {count} audio file{'s'[: count > 1]} beside its sessions left out")
    return names, tuple(warnings)


def sessions_among(files: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The sessions among stems and ``mixrl.toml`` files, named by their paths below ROOT, in order; and by folder (""
    for ROOT) how many audio files lie beside sessions."""
    names: list[str] = []
    loose: dict[str, int] = {}

    def look(folder: str, paths: Sequence[str]) -> None:
        below: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            first, _, rest = path.partition("/")
            if rest:
                below[first].append(rest)
        if beside := sum("/" not in path and is_audio(path) for path in paths):
            loose[folder] = beside
        for first, inside in below.items():
            name = f"{folder}/{first}" if folder else first
            if FILE in inside:
                names.append(name)
            elif any(path.endswith(f"/{FILE}") for path in inside):
                look(name, inside)
            elif any(map(is_audio, inside)):
                names.append(name)

    look("", list(files))
    return tuple(sorted(names)), loose


def _inputs_below(root: Folder, out: Folder) -> Iterator[str]:
    """The files that matter, by their paths below ``root``, without those in ``out``."""
    if root.remote:
        skip = f"{out.address.rstrip('/')}/"
        for name in root.files():
            if is_input(name) and not f"{root.address.rstrip('/')}/{name}".startswith(skip):
                yield name
        return
    if not root.path.is_dir():
        what = "is a file" if root.path.exists() else "does not exist"
        raise InputError(f"{root.address}: {what}: give a folder of session folders")
    home = root.path.resolve()
    results = None if out.remote else out.path.resolve()
    for entry in sorted(root.path.iterdir()):
        if skipped(entry.name):
            continue
        if not entry.is_dir():
            if is_input(entry.name):
                yield entry.name
            continue
        place = entry.resolve()
        # a link into ROOT leads to what is found there anyway, one to a folder above it back to where we are
        if place == results or (entry.is_symlink() and (home in (place, *place.parents) or place in home.parents)):
            continue
        try:
            found = Folder(str(entry)).files()
        except OSError:
            yield f"{entry.name}/{FILE}"  # what cannot be looked into is a session that fails, and says why
            continue
        around = results is not None and place in results.parents
        for name in found:
            if is_input(name) and not (around and results in (place / name).parents):
                yield f"{entry.name}/{name}"
