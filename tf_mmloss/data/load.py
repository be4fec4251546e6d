"""From what `--dataset` names to images, labels and a split, with a report of what was found and chosen."""

import math
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tf_mmloss._validation import choice, integer, number
from tf_mmloss.data.cache import Cached, Progress, read_images
from tf_mmloss.data.decoders import sums
from tf_mmloss.data.images import FITS, choose_size, measure
from tf_mmloss.data.source import DataError, Dirt, ImageError, Source, fingerprint, listed, named, shown
from tf_mmloss.data.sources import open_source
from tf_mmloss.data.splits import split_by_class
from tf_mmloss.datasets.base import ImageDataset
from tf_mmloss.datasets.rows import Rows

_SAMPLE, _SAMPLE_BYTES = 1000, 2**28
_IN_MEMORY = 2**22  # bytes


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images at one size, split; `x` may be larger than memory.

    Args:
        name: What the data are called.
        x: uint8 (N, height, width, channels), mapped from the disk. Rows that are in neither split may be empty.
        y: int64 (N,), values in `0 .. C - 1`.
        class_names: C names, in label order.
        train: int64 positions in `x` of the training images, ascending.
        test: int64 positions of what is evaluated.
        val: int64 positions of a validation split beside a test split; empty without one.
        names: N file names or keys.
        mean: Mean of the training pixels (without any, of the evaluated ones) divided by 255, one per channel.
        std: Standard deviation of the same, above 0.
        not_evaluated: Names of the classes without a test image.
        dirt: Files that are not what they should be: left out, or accepted.
        duplicates: Names of images with the same pixels that are in training and test, or in two classes.
        fingerprint: Equal where images, labels, splits and groups of the source are equal.
        licence: What the origin says about use.
        report: What was found, what was chosen and why: lines.
        groups: N integers, equal where images belong together; None where each stands alone.
    """

    name: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    train: np.ndarray = field(repr=False)
    test: np.ndarray = field(repr=False)
    val: np.ndarray = field(repr=False)
    names: Sequence[str] = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    not_evaluated: tuple[str, ...]
    dirt: tuple[Dirt, ...] = field(repr=False)
    duplicates: tuple[tuple[str, ...], ...] = field(repr=False)
    fingerprint: str
    licence: str
    report: tuple[str, ...] = field(repr=False)
    groups: np.ndarray | None = field(default=None, repr=False)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def dataset(self) -> ImageDataset:
        """The images as the data sets of `tf_mmloss.datasets` are, read when they are used."""
        return ImageDataset(
            self.name,
            Rows(self.x, self.train, self.names),
            self.y[self.train],
            Rows(self.x, self.test, self.names),
            self.y[self.test],
            self.class_names,
            self.mean,
            self.std,
            self.licence,
            origin=f"{self.name}; licence: {self.licence}",
            fingerprint=self.fingerprint,
            report=self.report,
            train_groups=None if self.groups is None else self.groups[self.train],
            test_groups=None if self.groups is None else self.groups[self.test],
        )


def load_images(
    spec: str | os.PathLike[str] | Source,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    fit: str = "crop",
    grey: bool | None = None,
    test_share: float | None = 0.2,
    seed: int = 0,
    group_by: str | None = None,
    skip_broken: bool = False,
    accept_odd: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: str | None,
) -> Images:
    """Read images from wherever they are, once, and split them.

    Args:
        spec: See `open_source`; or a `Source`.
        data_dir: Where `tfds:NAME` and CIFAR lie.
        image_size: The side of a square, or (height, width), in pixels; default: see `images.choose_size`.
        fit: "crop" (the largest centred part of the wanted shape) or "pad" (all of it, on black).
        grey: Whether to read as grey; default: where all of (a sample of) the images are.
        test_share: Of each class that is held out to evaluate, in (0, 1), where the data have no test split; None: all
            is evaluated, and nothing is for training.
        seed: Of that split, >= 0.
        group_by: A regular expression on file names without folder and extension: images for which it finds the same
            are kept on one side of the split, such as `^[^_]+` for what comes before the first `_`.
        skip_broken: Leave out what cannot be read, has another format's extension or several frames, instead of
            refusing it all.
        accept_odd: Take files with another format's extension by their content, and the first of several frames.
        cache_dir: Default: `$TF_MMLOSS_CACHE`, else `~/.cache/tf_mmloss`.
        workers: Threads, or processes where files are many, that decode; default: one for each processor.
        progress: Called with how many are done, how many there are and the seconds taken; default: lines, or one that
            is rewritten on a terminal, on the standard error.
        **options: Of the kind of source; see `open_source`.

    Returns:
        The images.

    Raises:
        DataError: The data cannot be used as they are; the message says why.
        ImportError: Pillow, or what a kind of source needs, is not installed.
        ValueError: An argument out of range.

    Example:
        >>> from tf_mmloss.data import load_images
        >>> images = load_images("digits")
        >>> images.x.shape, len(images.train), len(images.test)
        ((1797, 8, 8, 1), 1297, 500)
    """
    choice("fit", fit, FITS)
    if test_share is not None:
        number("test_share", test_share, above=0, below=1)
    source = spec if isinstance(spec, Source) else open_source(spec, data_dir, **options)
    report = [_what(source), *source.notes]
    height, width, channels, why = _size(source, image_size, grey)
    colour = "grey" if channels == 1 else "colour"
    report.append(f"Images at {height} x {width} (height x width), {colour}, {fit}: {why}.")
    cached = read_images(source, height, width, channels, fit, cache_dir, workers, progress or progress_printer())
    if cached.seconds:
        report.append(f"Read in {cached.seconds:.1f} s; the pixels are kept in the cache.")
    usable, dirt = _sort_out(source, cached, skip_broken, accept_odd)
    if dirt:
        left_out = len(source.dirt) + len(source) - int(usable.sum())
        report.append(f"Not what they should be, {left_out:,} left out:{listed(dirt)}")
    keys, why_groups = _groups(source, group_by)
    groups, why_groups = _with_equal(keys, why_groups, cached.pixels, usable)
    train, test, val, notes = _split(source, usable, groups, why_groups, test_share, seed)
    report.extend(notes)
    report.extend(_on_both_sides(keys, train, test))
    if not len(test):
        why = "no class has two images that may be on two sides of a split" if source.split is None else "no test image"
        raise DataError(f"{shown(source.name)} leaves nothing to evaluate: {why}.")
    duplicates, notes = _duplicates(source, cached.pixels, train, test, val)
    report.extend(notes)
    evaluated = np.bincount(source.labels[test], minlength=len(source.class_names))
    not_evaluated = tuple(name for name, n in zip(source.class_names, evaluated, strict=True) if not n)
    if not_evaluated:
        report.append(f"Without a test image, so not evaluated: {named(not_evaluated, 20)}.")
    mean, std = mean_and_std(cached.images, train if len(train) else test, cached.moments)
    return Images(
        name=source.name,
        x=cached.images,
        y=source.labels,
        class_names=source.class_names,
        train=train,
        test=test,
        val=val,
        names=source.names,
        mean=mean,
        std=std,
        not_evaluated=not_evaluated,
        dirt=dirt,
        duplicates=duplicates,
        fingerprint=fingerprint(source, cached.content, keys),
        licence=source.licence,
        report=tuple(report),
        groups=groups,
    )


def mean_and_std(
    images: np.ndarray, indices: np.ndarray, moments: np.ndarray | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels divided by 255, by channel.

    Args:
        images: uint8 (N, height, width, channels).
        indices: Of the images that count.
        moments: See `Cached`; without them the images are read, a few megabytes at a time.

    Returns:
        Two tuples, one number per channel; a channel of one value has the standard deviation 1.
    """
    if moments is not None:
        total = moments[indices].sum(axis=0).astype(np.float64)
    else:
        step = max(_IN_MEMORY // math.prod(images.shape[1:]), 1)
        chunks = (images[indices[start : start + step]] for start in range(0, len(indices), step))
        total = sum((sums(chunk).sum(axis=0) for chunk in chunks), np.zeros((2, images.shape[-1])))
    pixels = len(indices) * images.shape[1] * images.shape[2]
    mean, square = total / pixels
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple((mean / 255).tolist()), tuple(np.where(std > 1e-6, std / 255, 1.0).tolist())


def progress_printer() -> Progress:
    """What says how far a reading is: on a terminal in one line, elsewhere in a line every tenth."""
    printed, tenth = 0.0, 0

    def print_progress(done: int, total: int, seconds: float) -> None:
        nonlocal printed, tenth
        last = done == total
        if seconds < 1:
            return
        line = f"Reading images: {done:,} of {total:,}, {done / seconds:,.0f} a second"
        if not last:
            line += f", {seconds / done * (total - done):.0f} s left"
        if sys.stderr.isatty():
            now = time.monotonic()
            if last or now - printed > 0.2:
                printed = now
                print(f"\r{line:<79}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last or done * 10 // total > tenth:
            tenth = done * 10 // total
            print(line, file=sys.stderr, flush=True)

    return print_progress


def _what(source: Source) -> str:
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    large, small = int(counts.argmax()), int(counts.argmin())
    each = f"{counts[large]:,} of each"
    if counts[large] != counts[small]:
        named_counts = (f"{counts[c]:,} ({shown(source.class_names[c])})" for c in (large, small))
        each = f"from {' to '.join(named_counts)}"
    return f"{shown(source.name)}: {len(source):,} images of {len(counts)} classes, {each}. Licence: {source.licence}"


def _size(source: Source, image_size: int | tuple[int, int] | None, grey: bool | None) -> tuple[int, int, int, str]:
    """Height, width, channels and why."""
    if image_size is not None:
        sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
        if len(sides) != 2:
            raise DataError(f"`image_size` must be a side or (height, width). Received: image_size={image_size!r}")
        height, width = (integer("image_size", side, at_least=1) for side in sides)
        why = "as `image_size` says"
    if source.shape is not None:
        sizes, all_grey = np.array([source.shape[:2]]), source.shape[2] == 1
    elif image_size is None or grey is None:
        sizes, all_grey = _measure(source)
    if image_size is None:
        height, width, why = choose_size(sizes)
    return height, width, 1 if (all_grey if grey is None else grey) else 3, why


def _measure(source: Source) -> tuple[np.ndarray, bool]:
    """Sizes of a sample of the images, and whether all of it is grey; a smaller sample where files are large."""
    count = min(len(source), _SAMPLE)
    chosen = np.arange(count) if source.sequential else np.linspace(0, len(source) - 1, count).astype(np.int64)
    if not source.sequential:
        np.random.default_rng(0).shuffle(chosen)
    sizes, all_grey, read = [], True, 0
    for i in range(count):
        (picture,) = source.read(chosen[i : i + 1])
        try:
            if isinstance(picture, ImageError):
                continue
            read += picture.nbytes if isinstance(picture, np.ndarray) else len(picture)
            height, width, is_grey = measure(picture)
        except ImageError:
            continue
        sizes.append((height, width))
        all_grey = all_grey and is_grey
        if read > _SAMPLE_BYTES and i > _SAMPLE // 10:
            break
    if not sizes:
        raise DataError(f"{source.name}: none of {count:,} images can be read, the first is {source.names[0]}.")
    return np.array(sizes), all_grey


def _sort_out(
    source: Source, cached: Cached, skip_broken: bool, accept_odd: bool
) -> tuple[np.ndarray, tuple[Dirt, ...]]:
    """Which images are used, and what is wrong with others.

    Raises:
        DataError: Something is wrong and it is neither to be skipped nor accepted, or nothing is left of a class.
    """
    dirt = (*source.dirt, *(cached.dirt[index] for index in sorted(cached.dirt)))
    refused = [one for one in dirt if not (one.readable and accept_odd)]
    if refused and not skip_broken:
        odd = sum(one.readable for one in refused)
        what, they = ("1 file that is", "it") if len(refused) == 1 else (f"{len(refused):,} files that are", "they")
        hint = ", or `accept_odd` to read what has another extension or several frames" if odd else ""
        raise DataError(
            f"{shown(source.name)} has {what} not what {they} should be:{listed(refused)}\n"
            f"Mend them, or give `skip_broken` to leave them out{hint}."
        )
    usable = np.ones(len(source), bool)
    usable[[index for index, one in cached.dirt.items() if not (one.readable and accept_odd)]] = False
    counts = np.bincount(source.labels[usable], minlength=len(source.class_names))
    if not counts.all():
        lost = [name for name, n in zip(source.class_names, counts, strict=True) if not n]
        raise DataError(f"{shown(source.name)}: no image can be read of {named(lost)}.{listed(dirt)}")
    return usable, dirt


def _split(
    source: Source, usable: np.ndarray, groups: np.ndarray | None, why: str, test_share: float | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Positions of training, test and validation images."""
    if source.split is not None:
        parts = {name: np.flatnonzero(usable & (source.split == name)) for name in ("train", "test", "val")}
        notes = []
        if not len(parts["test"]):
            parts["test"], parts["val"] = parts["val"], parts["test"]
            notes.append("The data have no test split: their validation split is what is evaluated.")
        if len(parts["val"]):
            notes.append(
                f"The {len(parts['val']):,} validation images are not used: `holdout` takes its images from the "
                "training split. To use them, move them there."
            )
        if why:
            notes.append(f"Where `holdout` takes images from the training split, {why} stay together.")
        lacking = sorted(set(source.labels[usable].tolist()) - set(source.labels[parts["train"]].tolist()))
        if lacking:
            names = named(source.class_names[label] for label in lacking)
            raise DataError(
                f"{shown(source.name)}: the training split has no image of {names}, which other splits have."
            )
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if len(part))
        return parts["train"], parts["test"], parts["val"], [f"Split as the data say: {sizes}.", *notes]
    chosen = np.flatnonzero(usable)
    if test_share is None:
        return np.zeros(0, np.int64), chosen, np.zeros(0, np.int64), [f"All are evaluated: {len(chosen):,} images."]
    train, test = split_by_class(source.labels[chosen], test_share, seed, None if groups is None else groups[chosen])
    note = f"Split by class, seed {seed}, {test_share:.0%} of each to test: {len(train):,} train, {len(test):,} test"
    together = f", {why} kept together" if why else ""
    return chosen[train], chosen[test], np.zeros(0, np.int64), [f"{note}{together}."]


def _groups(source: Source, group_by: str | None) -> tuple[np.ndarray | None, str]:
    """Keys of what a split keeps together, groups of names or of the source, and words for it; None without any."""
    if group_by is not None:
        find = _pattern(group_by)
        stems = [os.path.splitext(os.path.basename(name))[0] for name in source.names]
        found = [find(stem) for stem in stems]
        if not any(found):
            raise DataError(f"`group_by` must match file names. Received: group_by={group_by!r}, {shown(stems[0])!r}")
        keys = np.array([match.group() if match else f"\0{i}" for i, match in enumerate(found)])
        return keys, f"{len(set(keys.tolist())):,} groups of names ({group_by})"
    if source.groups is not None:
        return source.groups, f"{len(set(source.groups.tolist())):,} groups"
    return None, ""


def _on_both_sides(keys: np.ndarray | None, train: np.ndarray, test: np.ndarray) -> list[str]:
    """A line about groups that a split of the data's own has taken apart."""
    both = () if keys is None else sorted(set(keys[train].tolist()) & set(keys[test].tolist()), key=str)
    if not both:
        return []
    names = named(map(str, both))
    return [f"Groups in training and in test, {len(both):,}: {names}. Their test images are not new to the network."]


def _with_equal(
    keys: np.ndarray | None, why: str, pixels: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """Numbers of groups, of which those with equal pixels are one; None if all stand alone.

    The words name equal images where some are used: those that could not be read have equal pixels too.
    """
    _, same = np.unique(_keys(pixels), return_inverse=True)
    numbers = None if keys is None else np.unique(keys, return_inverse=True)[1]
    if same.max() + 1 == len(pixels):
        return numbers, why
    words = [why] if why else []
    if len(np.unique(same[usable])) < usable.sum():
        words.append("equal images")
    return same if numbers is None else _joined(numbers, same), " and ".join(words)


def _pattern(group_by: str) -> Callable[[str], re.Match[str] | None]:
    try:
        return re.compile(group_by).search
    except re.error as error:
        raise DataError(f"`group_by` must be a regular expression: {error}. Received: {group_by!r}") from error


def _joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Groups such that what either of two groupings has together stays together: the smallest label spreads."""
    group = one.copy()
    while True:
        before = group
        for keys in (other, one):
            lowest = np.full(keys.max() + 1, len(group) + group.max())
            np.minimum.at(lowest, keys, group)
            group = lowest[keys]
        if np.array_equal(before, group):
            return group


def _duplicates(
    source: Source, pixels: np.ndarray, train: np.ndarray, test: np.ndarray, val: np.ndarray
) -> tuple[tuple[tuple[str, ...], ...], list[str]]:
    """Names of images with equal pixels on two sides of the split or in two classes, and lines about them."""
    side = np.zeros(len(source), np.int8)
    for which, part in enumerate((train, test, val), start=1):
        side[part] = which
    used = np.flatnonzero(side)
    order = used[np.argsort(_keys(pixels)[used], kind="stable")]
    keys = _keys(pixels)[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    several = np.flatnonzero(np.diff(starts) > 1)
    groups = [order[starts[i] : starts[i + 1]] for i in several.tolist()]
    groups.sort(key=lambda group: int(group[0]))
    leaking = [g for g in groups if len(set(side[g].tolist())) > 1]
    contradicting = [g for g in groups if len(set(source.labels[g].tolist())) > 1]

    def lines(found: list[np.ndarray]) -> list[str]:
        return [" = ".join(_with_class(source, i) for i in group.tolist()) for group in found]

    notes = []
    if leaking:
        notes.append(f"The same image in training and in test, {len(leaking):,} times:{listed(lines(leaking))}")
    if contradicting:
        notes.append(f"The same image in two classes, {len(contradicting):,} times:{listed(lines(contradicting))}")
    alike = len(groups) - len({int(g[0]) for g in (*leaking, *contradicting)})
    if alike:
        notes.append(f"The same image several times in one class, {alike:,} times: left as it is.")
    reported = {int(g[0]): g for g in (*leaking, *contradicting)}
    return tuple(tuple(source.names[i] for i in reported[k].tolist()) for k in sorted(reported)), notes


def _with_class(source: Source, index: int) -> str:
    name, label = shown(source.names[index]), shown(source.class_names[source.labels[index]])
    return name if label in name else f"{name} ({label})"


def _keys(digests: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(digests).view(f"V{digests.shape[1]}").reshape(-1)
