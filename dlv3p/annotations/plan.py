"""Settle classes and splits before anything is written: from the labels and the names of all annotated images.

Classes are the labels, or what a table maps them to. Splits follow a list, shares, or the annotations themselves, and a
group is never in two of them: what must not be torn apart, since its images are alike, as a street's, a patient's, or a
video's are.
"""

import csv
import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.untrusted import check_row, given_path, read_at_most, sanitize, why_no_heading
from cityscapes.labels import IGNORE
from cityscapes.layout import check_split_name
from dlv3p.annotations.shapes import Label
from dlv3p.data.class_table import HEADING, IGNORED_NAMES
from dlv3p.data.classes import BACKGROUND_NAMES, default_color
from dlv3p.parameters.annotations import DEFAULT_SHARES, FOLDER, NONE, read_pattern, read_shares

BACKGROUND = "background"
IGNORE_CLASS, SKIP_CLASS = "ignore", "skip"
MEANINGS = {"__ignore__": IGNORE_CLASS, "_background_": BACKGROUND} | dict.fromkeys(IGNORED_NAMES, IGNORE_CLASS)
"""Labels that mean something else than a class of that name, unless a table says so; the first two are LabelMe's."""
TABLE_HEADING = "label,class"
LARGEST_TABLE = 256 * 2**20
"""Bytes of a table of labels or images."""

COLOR = re.compile("#[0-9a-f]{6}")
"""How a color is called that has no name."""

Color = tuple[int, int, int]


class Classes(NamedTuple):
    """The names by id, a color each, and the id of each label: 255 is ignored, None is not drawn.

    `unlabeled` is the id of pixels that no shape covers.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    id_of: dict[str, int | None]
    unlabeled: int
    notes: tuple[str, ...] = ()

    def to_csv(self) -> str:
        """Return the table of classes that a plain folder has."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADING.split(","))
        writer.writerows((index, self.names[index], *color) for index, color in enumerate(self.colors))
        return text.getvalue()


def choose_classes(
    declared: Sequence[Label],
    used: Mapping[str, int],
    *,
    class_table: str = "",
    unlabeled: str = BACKGROUND,
    covering: bool = False,
) -> Classes:
    """Return the classes: those of `class_table`, else each used label, in declared order or else alphabetical.

    `used` counts the shapes of each label. The table is a CSV file label,class, and perhaps red,green,blue; a class
    called ignore is 255 in the masks, one called skip is not drawn, and ids follow the table. With unlabeled=background
    there is a class for what no shape covers, the first one unless a label is called so; none where the shapes of every
    image are `covering` it, as those of masks do. Raises InputError for labels that are not in the table, for those
    that differ in case or spaces alone, for colors that no table names, and for names that no class can have.
    """
    notes: list[str] = []
    if class_table:
        class_of, given = _read_table(given_path(class_table))
        _refuse_unknown(used, class_of, class_table)
        if idle := [label for label in class_of if label not in used]:
            notes.append(f"{len(idle)} labels of the table do not occur: {_listed(idle)}")
    else:
        labels = [label for label in declared if label.name in used]
        labels += [Label(name) for name in sorted(set(used) - {label.name for label in labels})]
        meant = [label.name for label in declared if MEANINGS.get(label.name.lower()) != IGNORE_CLASS]
        if idle := [name for name in meant if name not in used]:
            notes.append(f"{len(idle)} labels do not occur and are no classes: {_listed(idle)}")
        _refuse_alike([label.name for label in labels])
        _refuse_unnamed([label.name for label in labels], {label.name for label in declared})
        class_of = {label.name: MEANINGS.get(label.name.lower(), label.name) for label in labels}
        if ignored := [label for label, name in class_of.items() if name == IGNORE_CLASS]:
            notes.append(f"{_listed(ignored)}: ignored (255); a class_table can make it a class")
        if str(IGNORE) in class_of and len(class_of) > 2:
            notes.append(
                f"{IGNORE} is a class; where it marks pixels to ignore, say so by class_table: {IGNORE},ignore"
            )
        given = {class_of[label.name]: label.color for label in labels if label.color}
    names = [name for name in dict.fromkeys(class_of.values()) if name not in (IGNORE_CLASS, SKIP_CLASS)]
    if unfit := [name for name in names if not name.strip().isprintable()]:
        raise InputError(
            f"the label {sanitize(unfit[0])!r} holds a character that cannot be shown; rename it, or give it a class "
            f"by class_table, a CSV file {TABLE_HEADING}"
        )
    empty = IGNORE
    if unlabeled == BACKGROUND and not (covering and SKIP_CLASS not in class_of.values()):
        rest = next((name for name in names if name.strip().lower() in BACKGROUND_NAMES), BACKGROUND)
        names = names if rest in names else [rest, *names]
        empty = names.index(rest)
    if not 2 <= len(names) <= IGNORE:
        raise InputError(
            f"{len(names)} classes: {_listed(names)}; a data set has 2 to {IGNORE}, and with unlabeled=background "
            "what no shape covers is one"
        )
    special: dict[str, int | None] = {IGNORE_CLASS: IGNORE, SKIP_CLASS: None}
    id_of = {label: special[name] if name in special else names.index(name) for label, name in class_of.items()}
    return Classes(tuple(names), _colors(names, given), id_of, empty, tuple(notes))


def _read_table(path: Path) -> tuple[dict[str, str], dict[str, Color]]:
    content = read_at_most(path, LARGEST_TABLE, missing=f"no such table of {TABLE_HEADING}", too_large="too long")
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table ({error}); save it as CSV in UTF-8") from error
    class_of: dict[str, str] = {}
    colors: dict[str, Color] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        if not {"label", "class"} <= set(row):
            why = why_no_heading(reader.fieldnames)
            raise InputError(f"{path}: its first line must be {TABLE_HEADING} (red,green,blue are optional){why}")
        check_row(row, where)
        label, name = (row["label"] or "").strip(), (row["class"] or "").strip()
        if not label or not name:
            raise InputError(f"{where}: label or class is empty; {IGNORE_CLASS} and {SKIP_CLASS} are classes, too")
        if class_of.setdefault(label, name) != name:
            raise InputError(f"{where}: {sanitize(label)} belongs to two classes; keep one line")
        if any(values := [(row.get(key) or "").strip() for key in ("red", "green", "blue")]):
            if not all(value.isdecimal() and int(value) < 256 for value in values):
                raise InputError(f"{where}: its color is {','.join(values)}; expected three numbers from 0 to 255")
            red, green, blue = map(int, values)
            colors.setdefault(name, (red, green, blue))
    if not class_of:
        raise InputError(f"{path}: names no label; write a line for each under {TABLE_HEADING}")
    return class_of, colors


def _refuse_unknown(used: Mapping[str, int], class_of: Mapping[str, str], path: str) -> None:
    unknown = Counter({label: count for label, count in used.items() if label not in class_of})
    if unknown:
        listed = ", ".join(f"{sanitize(label)!r} x {count}" for label, count in unknown.most_common(20))
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise InputError(
            f"class_table={path!r}: labels that it does not name: {listed}{more}; add a line for each, with the class "
            f"{IGNORE_CLASS} or {SKIP_CLASS} for those you do not need"
        )


def _refuse_alike(labels: Sequence[str]) -> None:
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[" ".join(label.casefold().replace("_", " ").split())].append(label)
    for found in alike.values():
        if len(found) > 1:
            raise InputError(
                f"labels that differ in case or spaces alone: {', '.join(map(repr, found))}; rename them, or say by "
                f"class_table, a CSV file {TABLE_HEADING}, which class each is"
            )


def _refuse_unnamed(labels: Sequence[str], declared: set[str]) -> None:
    """Refuse colors of masks beside named colors, or beside ids: a mask is of another kind, or has stray colors."""
    colors = [label for label in labels if COLOR.fullmatch(label) and label not in declared]
    others = declared or {label for label in labels if label.isdecimal()}
    if colors and others:
        named = "colors that have no name" if declared else "masks of colors beside masks of ids"
        raise InputError(
            f"{named}: {_listed(colors)}; correct the masks, or say by class_table, a CSV file {TABLE_HEADING}, what "
            f"each is ({IGNORE_CLASS} and {SKIP_CLASS} are classes, too)"
        )


def _colors(names: Sequence[str], given: Mapping[str, Color]) -> tuple[Color, ...]:
    """Return a color for each class: the given ones, beside which a background is black, unless two are the same."""
    black = dict.fromkeys(BACKGROUND_NAMES, (0, 0, 0)) if given else {}
    colors = [given.get(name) or black.get(name) or default_color(index, name) for index, name in enumerate(names)]
    if len(set(colors)) < len(colors):
        colors = [default_color(index, name) for index, name in enumerate(names)]
    return tuple(colors)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(sanitize, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class Plan(NamedTuple):
    """The split and the group of each image that is used, by name, and what was left out or is worth a look."""

    split_of: dict[str, str]
    group_of: dict[str, str]
    notes: tuple[str, ...] = ()

    def splits(self) -> list[str]:
        """Return the splits, the one to train on first, then the largest."""
        counts = Counter(self.split_of.values())
        return sorted(counts, key=lambda split: (split != "train", -counts[split], split))

    def to_csv(self) -> str:
        """Return the plan as a table, which `split_list` takes as well."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("image", "split", "group"))
        writer.writerows((name, split, self.group_of[name]) for name, split in sorted(self.split_of.items()))
        return text.getvalue()


def plan_splits(
    subset_of: Mapping[str, str],
    *,
    shares: str = "",
    split_list: str = "",
    groups: str = FOLDER,
    seed: int = 0,
    before: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan for images, given by name with the split that their annotation puts each in, which may be "".

    A list comes first, then shares, then the annotation's own splits if it has two or more, then 80 % for training.
    `before` is an earlier plan, which images and groups keep. Raises ParameterError, InputError and MissingInputError.
    """
    group_of = find_groups(list(subset_of), groups)
    own = len(set(subset_of.values()) - {""}) > 1 and not shares
    if split_list:
        split_of, notes = _of_list(list(subset_of), given_path(split_list))
    elif own:
        split_of, notes = {name: subset for name, subset in subset_of.items() if subset}, []
        if left := len(subset_of) - len(split_of):
            notes = [f"{left} images are in none of the splits that the annotations name; give splits or split_list"]
    else:
        return Plan(_share_out(group_of, read_shares(shares or DEFAULT_SHARES), seed, before or {}), group_of)
    _refuse_torn(split_of, group_of, by_default=groups == FOLDER)
    return Plan(split_of, group_of, tuple(notes))


def find_groups(names: Sequence[str], groups: str) -> dict[str, str]:
    """Return the group of each image by name.

    `groups` is folder, none, a CSV table image,group, or a regular expression with one pair of parentheses around what
    images of one group share. Where all images lie in one folder, each is a group by itself.
    """
    if groups == FOLDER:
        folders = {name: str(PurePosixPath(name).parent) for name in names}
        return folders if len(set(folders.values())) > 1 else {name: name for name in names}
    if groups == NONE:
        return {name: name for name in names}
    if groups.lower().endswith(".csv"):
        return _of_table(names, given_path(groups), "group")
    return _of_pattern(names, groups)


def _of_pattern(names: Sequence[str], groups: str) -> dict[str, str]:
    pattern = read_pattern(groups)
    found = {name: pattern.search(name) for name in names}
    if strays := [name for name, match in found.items() if not match or match[1] is None]:
        raise InputError(
            f"image_groups={groups!r}: fits no part of {len(strays)} names, the first {sanitize(strays[0])}"
        )
    return {name: match[1] for name, match in found.items() if match}


def _share_out(
    group_of: Mapping[str, str], shares: Mapping[str, float], seed: int, before: Mapping[str, str]
) -> dict[str, str]:
    sizes = Counter(group_of.values())
    split_of_group = {group_of[name]: split for name, split in before.items() if name in group_of and split in shares}
    filled: Counter[str] = Counter()
    for group, split in split_of_group.items():
        filled[split] += sizes[group]
    total = sum(sizes.values())
    for group in sorted(sizes, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest()):
        if group not in split_of_group:
            split = max(shares, key=lambda split: shares[split] * total - filled[split])
            split_of_group[group] = split
            filled[split] += sizes[group]
    fixed = {group_of[name] for name in before if name in group_of}
    for split in [split for split in shares if not filled[split]]:
        held = Counter(split_of_group.values())
        spare = [group for group, at in split_of_group.items() if held[at] > 1 and group not in fixed]
        if not spare:
            raise InputError(_why_empty(split, sizes, len(shares), kept=len(fixed) == len(sizes)))
        group = min(spare, key=lambda group: (sizes[group], group))  # the smallest leaves the shares nearly as they are
        split_of_group[group] = split
    return {name: split_of_group[group] for name, group in group_of.items()}


def _why_empty(split: str, sizes: Mapping[str, int], splits: int, *, kept: bool) -> str:
    """Say why no group is left for a split: one, which may be a single image, is never divided, nor moved later."""
    images, groups = sum(sizes.values()), len(sizes)
    found = f"{images} image{'s' * (images != 1)}"
    if groups < images:
        found += f" in {groups} group{'s' * (groups != 1)}"
    if kept:
        return (
            f"split {split!r} would have no image: {found} in the splits of an earlier call, which they "
            "keep; choose another output"
        )
    grouped = ", and a group is never divided; name fewer in splits, or other image_groups"
    remedy = grouped if groups < images else "; name fewer in splits"
    return f"split {split!r} would have no image: {found} for {splits} splits{remedy}"


def _refuse_torn(split_of: Mapping[str, str], group_of: Mapping[str, str], *, by_default: bool) -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for name, split in split_of.items():
        found[group_of[name]].add(split)
    torn = {group: splits for group, splits in found.items() if len(splits) > 1}
    if torn and not by_default:
        group, splits = next(iter(torn.items()))
        raise InputError(
            f"{len(torn)} groups are in several splits, the first {sanitize(group)} in {', '.join(sorted(splits))}; "
            "correct the list or the groups, or give splits to split them again"
        )


def _of_list(names: Sequence[str], path: Path) -> tuple[dict[str, str], list[str]]:
    if path.is_dir():
        rows = [(line.strip(), file.stem) for file in sorted(path.glob("*.txt")) for line in _text(file).splitlines()]
        rows = [row for row in rows if row[0]]
        if not rows:
            raise InputError(f"{path}: no list of images, such as train.txt; write one name per line")
    else:
        rows = _rows(path, "split")
    found, strays = _matched(names, rows, path)
    for split in set(found.values()):
        check_split_name(split)
    if not found:
        raise InputError(f"{path}: names none of the {len(names)} images, the first {sanitize(names[0])}")
    left = len(names) - len(found)
    notes = [f"{left} images are not in {path.name} and are left out"] * bool(left)
    if strays:
        notes.append(f"{path.name} names {len(strays)} images that cannot be used, the first {sanitize(strays[0])}")
    return found, notes


def _of_table(names: Sequence[str], path: Path, column: str) -> dict[str, str]:
    found, _ = _matched(names, _rows(path, column), path)
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{path}: has no {column} for {len(missing)} images, the first {sanitize(missing[0])}")
    return found


def _rows(path: Path, column: str) -> list[tuple[str, str]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    if not {"image", column} <= set(reader.fieldnames or ()):
        raise InputError(f"{path}: its first line must be image,{column}{why_no_heading(reader.fieldnames)}")
    rows = []
    for row in reader:
        check_row(row, f"{path}, line {reader.line_num}")
        if row["image"]:
            rows.append((row["image"].strip(), (row[column] or "").strip()))
    return rows


def _matched(names: Sequence[str], rows: Iterable[tuple[str, str]], path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the value of each image that a row names, in full, without suffix or folders, and the rows of no image."""
    called: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for key in {name, PurePosixPath(name).name}:
            called[key].append(name)
    found: dict[str, str] = {}
    strays = []
    for text, value in rows:
        given = text.replace("\\", "/").removeprefix("./")
        keys = [given, str(PurePosixPath(given).with_suffix("")), PurePosixPath(given).name, PurePosixPath(given).stem]
        key = next((key for key in keys if key in called), None)
        if key is None:
            strays.append(text)
            continue
        fitting = [key] if key in called[key] else called[key]
        if len(fitting) > 1:
            raise InputError(f"{path}: {sanitize(text)} fits {len(fitting)} images, {fitting[0]} and {fitting[1]}")
        if found.setdefault(fitting[0], value) != value:
            raise InputError(f"{path}: {sanitize(text)} is both {sanitize(found[fitting[0]])} and {sanitize(value)}")
    return found, strays


def _text(path: Path) -> str:
    if not path.exists():
        raise MissingInputError(f"{path}: no such table; write one with a line for each image")
    content = read_at_most(path, LARGEST_TABLE, missing="no such table", too_large="too long for a table")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
