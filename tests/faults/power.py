"""A power cut, prepared inside the process that it will hit: what is not synced at that moment is lost.

Loaded into a training by `exec`. It keeps a shadow of what the disk holds for certain: at every fsync of a file its
content, at every fsync of a folder the names in it. After the kill, `cut` (in the test's process) leaves the folder
as a disk could have it: strictly what was synced, or all names with what was synced of their content.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


class Shadow:
    """What of a folder is on the disk for certain.

    Args:
        root: the folder; what is in it when the process starts is on the disk.
        store: where the shadow is kept, outside of the folder.
    """

    def __init__(self, root: Path, store: Path) -> None:
        self.root, self.store, self.sync = str(root), store, os.fsync
        self.held: list[int] = []  # open files keep their inodes: a number that is used again would mix two files up
        store.mkdir(parents=True)
        for folder, _, names in os.walk(root):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                if not os.path.islink(path):
                    handle = os.open(path, os.O_RDONLY)
                    self.note(handle)
                    os.close(handle)

    def note(self, handle: int) -> None:
        """A file or folder was synced."""
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path != self.root and not path.startswith(self.root + "/"):
            return
        self.held.append(os.dup(handle))
        known = self.store / str(os.fstat(handle).st_ino)
        fresh = known.with_suffix(".fresh")
        if os.path.isdir(path):
            fresh.write_text(json.dumps({e.name: e.inode() for e in os.scandir(path) if not e.is_symlink()}))
            os.replace(fresh, known.with_suffix(".names"))
        else:
            shutil.copyfile(path, fresh)
            os.replace(fresh, known)

    def fsync(self, handle: int) -> None:
        """In the place of `os.fsync`."""
        self.sync(handle)
        self.note(handle)


def cut(root: Path, store: Path, strictly: bool) -> None:
    """Let the power fail: lose what the shadow does not hold.

    Args:
        root: the folder, whose process is dead.
        store: its shadow.
        strictly: names that were not synced are lost too; else they are there, with the content that was synced.
    """

    def content(inode: int) -> bytes:
        known = store / str(inode)
        return known.read_bytes() if known.exists() else b""

    if not strictly:
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.write_bytes(content(path.stat().st_ino))
        return
    folders = {path.stat().st_ino for path in root.rglob("*") if path.is_dir() and not path.is_symlink()}

    def restore(inode: int, target: Path) -> None:
        names = store / f"{inode}.names"
        if names.exists() or inode in folders:
            target.mkdir()
            for name, number in json.loads(names.read_text()).items() if names.exists() else ():
                restore(number, target / name)
        else:
            target.write_bytes(content(inode))

    left = root.with_name(root.name + ".left")
    restore(root.stat().st_ino, left)
    shutil.rmtree(root)
    os.rename(left, root)
