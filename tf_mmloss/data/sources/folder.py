"""A folder of class folders, or of `train/` and `test/` or `val/` with class folders in each."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tf_mmloss.data.images import SIGNATURE_SIZE, SUFFIXES, claims_image, image_format
from tf_mmloss.data.source import SPLIT_NAMES, DataError, Dirt, Source, encode, listed, named, shown, suffix
from tf_mmloss.data.sources._files import Files, Stamp, unusable
from tf_mmloss.files import is_inside

FORM = "FOLDER"
HELP = "a folder of class folders, or with train/ and test/ or val/ of class folders"
MOST_DEEP = 100  # folders in one another below a class


def matches(path: Path) -> bool:
    """Whether this reads what lies at a path."""
    return path.is_dir()


def open_path(path: Path) -> Source:
    """Return the images below a folder; the name of a class is that of its folder.

    Hidden files, and files that are no images, are left out. No link is followed to outside the folder.

    Raises:
        DataError: No class folders, one class, no images, two spellings of a class, or a link that leads outside.
    """
    listing = _Listing(os.path.realpath(path))
    shown_path = shown(str(path))
    folders, loose = listing.look("")
    by_split: dict[str, list[str]] = {}
    for folder in folders:
        if folder.lower() in SPLIT_NAMES:
            by_split.setdefault(SPLIT_NAMES[folder.lower()], []).append(folder)
    is_split = ("train" in by_split and len(by_split) > 1) or (set(by_split) == {"train"} and len(folders) == 1)
    if is_split:
        _check_split_folders(shown_path, folders, by_split)
        for split, (folder,) in by_split.items():
            classes, inside = listing.look(folder)
            if not classes and split == "train":
                raise DataError(f"{shown_path}/{shown(folder)} has no class folders: one folder for each class.")
            if inside:
                listing.notes.append(_loose(f"{folder}/", inside, bool(classes)))
            for name in classes:
                listing.add_class(f"{folder}/{name}", name, split)
    else:
        if by_split and "train" not in by_split and all(folder.lower() in SPLIT_NAMES for folder in folders):
            raise DataError(f"{shown_path} has {named(folders)} but no train folder.")
        for name in folders:
            listing.add_class(name, name, "")
        if loose and folders:
            listing.notes.append(_loose("", loose, True))
    if listing.outside:
        raise DataError(
            f"{shown_path} has links that lead outside of it: {named(listing.outside)}. Copy what is meant."
        )
    if not listing.names:
        raise DataError(_nothing_found(shown_path, folders, loose, listing))
    class_names, labels = encode(listing.classes)
    if len(class_names) < 2:
        inner = f"{path}/{class_names[0]}"
        deeper = sorted({name.split("/")[1] for name in listing.names if name.count("/") > 1})
        hint = f" Did you mean {shown(inner)}, which has {len(deeper)} folders?" if len(deeper) > 1 else ""
        raise DataError(
            f"{shown_path} has one class only, {shown(class_names[0])!r}: a folder for each class is needed.{hint}"
        )
    if listing.empty:
        listing.notes.append(f"Class folders without images, left out: {named(listing.empty)}.")
    if listing.others:
        listing.notes.append(f"{len(listing.others):,} files that are no images, left out: {named(listing.others)}.")
    return Source(
        name=os.path.basename(os.path.realpath(path)) or "folder",
        class_names=class_names,
        labels=labels,
        names=listing.names,
        read=Files(listing.root, listing.names),
        split=np.array(listing.splits) if is_split and len(by_split) > 1 else None,
        stamp=str(listing.stamp),
        notes=tuple(listing.notes),
        dirt=tuple(listing.dirt),
    )


def image_files(root: Path) -> tuple[list[Path], list[Path]]:
    """What `open_path` takes for images below a folder, what of it cannot be read too, and other files; sorted.

    Links may lead outside.

    Raises:
        DataError: A folder cannot be read.
    """
    listing = _Listing(os.path.realpath(root), may_leave=True)
    listing.add_class("", "", "")
    images = sorted(root / name for name in (*listing.names, *(one.name for one in listing.dirt)))
    return images, [root / name for name in listing.others]


@dataclass
class _Listing:
    """What is found below a folder."""

    root: str
    may_leave: bool = False
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    stamp: Stamp = field(default_factory=Stamp)
    dirt: list[Dirt] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def look(self, folder: str) -> tuple[list[str], list[str]]:
        """The folders and the files in a folder, hidden ones left out, sorted."""
        folders: list[str] = []
        files: list[str] = []
        for entry in self._entries(folder):
            (folders if entry.is_dir() else files).append(entry.name)
        return folders, files

    def add_class(self, folder: str, name: str, split: str) -> None:
        """Add the images below a class folder, at any depth."""
        before = len(self.names) + len(self.dirt)
        self._add(folder, name, split, (os.path.realpath(os.path.join(self.root, folder)),))
        if len(self.names) + len(self.dirt) == before:
            self.empty.append(folder)

    def _add(self, folder: str, name: str, split: str, above: tuple[str, ...]) -> None:
        if len(above) - 1 > MOST_DEEP:
            raise DataError(f"{shown(folder)} is more than {MOST_DEEP} folders below its class folder.")
        for entry in self._entries(folder):
            path = f"{folder}/{entry.name}".lstrip("/")
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if entry.is_symlink() and any(place == real or place.startswith(real + os.sep) for place in above):
                    self.notes.append(f"A link to a folder above it, left out: {shown(path)}.")
                else:
                    self._add(path, name, split, (*above, real))
            elif not entry.is_file() and claims_image(suffix(entry.name)):
                self.dirt.append(
                    Dirt(path, "a link to what is not there" if entry.is_symlink() else "not a plain file")
                )
            elif entry.is_file() and self._is_image(entry):
                self._add_image(path, entry.stat(), name, split)
            else:
                self.others.append(path)

    def _add_image(self, path: str, status: os.stat_result, name: str, split: str) -> None:
        reason = unusable(status)
        if reason:
            self.dirt.append(Dirt(path, reason))
            return
        self.names.append(path)
        self.classes.append(name)
        self.splits.append(split)
        self.stamp.add(path, status)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                found = sorted((e for e in entries if not _is_hidden(e.name)), key=lambda entry: entry.name)
        except OSError as error:
            where = shown(folder or self.root)
            raise DataError(f"{where} cannot be read: {error.strerror or error}") from error
        inside = []
        for entry in found:
            if entry.is_symlink() and not (self.may_leave or is_inside(entry.path, self.root)):
                self.outside.append(f"{folder}/{entry.name}".lstrip("/"))
            else:
                inside.append(entry)
        return inside

    @staticmethod
    def _is_image(entry: os.DirEntry[str]) -> bool:
        if claims_image(suffix(entry.name)):
            return True
        try:
            with open(entry.path, "rb") as file:
                return image_format(file.read(SIGNATURE_SIZE)) is not None
        except OSError:
            return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _check_split_folders(shown_path: str, folders: list[str], by_split: dict[str, list[str]]) -> None:
    for split, found in by_split.items():
        if len(found) > 1:
            raise DataError(f"{shown_path} has two folders for {split}: {named(found)}.")
    others = [folder for folder in folders if folder.lower() not in SPLIT_NAMES]
    if others:
        raise DataError(
            f"{shown_path} has {named(found for (found,) in by_split.values())} and other folders beside them "
            f"({named(others)}): either splits or classes."
        )


def _loose(folder: str, files: list[str], has_classes: bool) -> str:
    where = "beside the class folders" if has_classes else "without class folders, so without labels"
    return f"{len(files):,} files {where}, left out: {named(folder + file for file in files)}."


def _nothing_found(shown_path: str, folders: list[str], loose: list[str], listing: _Listing) -> str:
    images = sum(claims_image(suffix(file)) for file in loose)
    if images and not folders:
        return f"{shown_path} has {images:,} images but no class folders: put the images of each class in a folder."
    if not folders:
        return f"{shown_path} has no class folders: a folder for each class, with its images, is needed."
    if listing.dirt:
        return f"{shown_path} has no image that can be read:{listed(listing.dirt)}"
    return f"{shown_path} has no images: its {len(folders)} class folders hold none of {', '.join(sorted(SUFFIXES))}."
