"""Prepare the outputs that notebooks are stored with: palette pictures, and nothing that varies from run to run.

Progress, seconds, addresses and the paths of a machine are left out of all outputs. In a cell whose outputs are
measured (tag `nbval-ignore-output`), tables lose what was measured, and figures go. `settled` compares the outputs of a
new run with the stored ones.
"""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

MEASURED = "nbval-ignore-output"
"""The tag of cells whose outputs are measured: time, memory, or what depends on the processor."""
MEASURED_HEADINGS = re.compile(
    r"\bms\b|_ms\b|second|speed-up|\btime\b|times |memory|mib\b|J/|joule|watt|energy|verdict|^(from|to)$",
    re.IGNORECASE,
)
"""The headings of columns and rows with measured values, unless others published them."""
WITHHELD, NOTE = "…", "<p>…: measured, so it differs from run to run; run the notebook to see it</p>"
"""What stands in a stored table for a measured value, and what explains it below the table."""
PICTURE_WIDTH, WIDE, PICTURE_COLORS = 720, 1200, 96
"""Limits of a stored picture; wider ones are reduced, and wide ones to half their size."""
FLAT_COLORS, FLAT_PIXELS, SHADE = 64, 24, 12
"""How many colors keep their place in the palette, each because so many pixels have it and none a similar one."""
PICTURES = ("image/png", "image/jpeg", "image/gif")


def _by_number(lines: re.Match[str]) -> str:
    return "".join(sorted(lines[0].splitlines(keepends=True), key=lambda line: int(line.split()[1])))


PATTERNS = {
    r"(?m)^.*\d+/\d+  \(eta [^)]*\)\n?|^.* (\d+)/\1  \d+\.\d s\n?|^.* \d+/\d+  \S+ \w+/s\b.*\n?": "",  # of `track`
    r"(?m)^finished before, nothing is left to train: .*\n?": "",  # of the one training for two notebooks
    r"  \d+\.\d s(?: waiting for data)?|  \(eta [^)]*\)": "",  # of an epoch
    r"(?m)^measured with \d+ threads: .*\n?|^about .* here: \d+ steps of .*\n(?:.* of disk\n?)?": "",  # of costs
    r"(?:;| ) about .* of disk": "",  # of the costs of jobs
    r"(?m)(?:^job \d+ \(.*\n){2,}": _by_number,  # jobs that ran at once end in any order
    r"(?<![\w/:.])(?:/[\w.+-]+)+/(?=(?:data|outputs|saved|notebooks)/)": "",
    r"\b[0-9a-f]{64}\b": "<sha256>",
    r" at 0x[0-9a-f]+": "",
}
"""Regular expressions of what varies, and what replaces it."""
STYLED = {r"(?s)<style.*?</style>": "", r"\bT_[0-9a-f]{5}": "T_"}
"""As before, for a comparison: the ids of styled tables are random, and colors follow from the numbers."""
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")
CLOSE = 0.002
"""How far decimal numbers may differ between AVX2 and AVX-512, relative to the number, or to 1 if it is smaller."""


def prepare(notebook: Any) -> None:
    """Replace all outputs of an executed notebook by what is stored of them."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        measured = MEASURED in cell.metadata.get("tags", [])
        cell.metadata.pop("execution", None)
        cell.execution_count = count
        cell.outputs = list(_stored_outputs(cell.outputs, count, measured))
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}


def without_variation(text: str) -> str:
    """Return a text without progress, seconds, addresses, hashes and the paths of a machine."""
    for pattern, replacement in PATTERNS.items():
        text = re.sub(pattern, replacement, text)
    return text


def settled(shown: list[Any], stored: list[Any], *, exact: bool) -> list[Any]:
    """Return shown outputs as they are compared with stored ones: texts without variation, no empty streams.

    Unless `exact`, decimal numbers that are close to the stored ones take their digits.
    """
    shown, stored = [list(_comparable(outputs)) for outputs in (shown, stored)]
    if exact or len(shown) != len(stored):
        return shown
    for new, old in zip(shown, stored, strict=True):
        if "text" in new and "text" in old:
            new["text"] = _settle(new["text"], old["text"])
        for kind in new.get("data", {}).keys() & old.get("data", {}).keys() - set(PICTURES):
            new["data"][kind] = _settle(new["data"][kind], old["data"][kind])
    return shown


def complaints(outputs: list[Any]) -> list[str]:
    """List what no reader of an executed notebook can act on: stderr, warnings, and remarks on the load average."""
    streams = [output for output in outputs if output["output_type"] == "stream"]
    found = [f"stderr: {output['text'].strip()}" for output in streams if output["name"] == "stderr"]
    lines = [line for output in streams if output["name"] == "stdout" for line in output["text"].splitlines()]
    return found + [line for line in lines if re.search(r"warning\b|load average", line, re.I)]


def palette_png(picture: bytes) -> bytes:
    """Return a picture, or the first frame of an animation, as a palette PNG of at most 720 pixels in width.

    Flat colors, such as those of classes, keep their place in the palette; what is left goes to all others.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    image = ground.convert("RGB")
    width = min(image.width, PICTURE_WIDTH if image.width < WIDE else WIDE // 2)
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    flat = _flat_colors(image)
    others = image.quantize(PICTURE_COLORS - len(flat), method=Image.Quantize.MEDIANCUT).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*(value for color in flat for value in color), *others])
    image = image.quantize(palette=palette, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _flat_colors(image: Any) -> list[tuple[int, int, int]]:
    """Return the most frequent colors that differ from one another by more than a shade."""
    flat: list[tuple[int, int, int]] = []
    for count, color in sorted(image.getcolors(image.width * image.height), reverse=True):
        if count < FLAT_PIXELS or len(flat) == FLAT_COLORS:
            break
        if all(max(abs(a - b) for a, b in zip(color, other, strict=True)) > SHADE for other in flat):
            flat.append(color)
    return flat


def _comparable(outputs: list[Any]) -> Iterator[Any]:
    """Yield copies of outputs whose texts are without what varies, joined streams first."""
    from nbformat import from_dict

    for output in sorted(outputs, key=lambda output: output["output_type"] != "stream"):
        copy = from_dict(output)
        if "text" in copy:
            copy["text"] = without_variation(copy["text"])
            if not copy["text"].strip():
                continue
        for kind, text in copy.get("data", {}).items():
            if kind.startswith("text/"):
                for pattern, replacement in (PATTERNS | STYLED).items():
                    text = re.sub(pattern, replacement, text)
                copy["data"][kind] = text
        yield copy


def _settle(shown: str, stored: str) -> str:
    """Return the shown text with the stored digits in place of decimal numbers that are close to them."""
    kept = NUMBER.findall(stored)
    if len(kept) != len(NUMBER.findall(shown)):
        return shown
    numbers = iter(kept)
    return NUMBER.sub(lambda match: _nearest(match[0], next(numbers)), shown)


def _stored_outputs(outputs: list[Any], count: int, measured: bool) -> Iterator[Any]:
    """Yield the outputs to store: streams of one kind joined, and empty ones left out."""
    from nbformat.v4 import new_output

    text = without_variation("".join(output.text for output in outputs if output.output_type == "stream"))
    if text.strip():
        yield new_output("stream", name="stdout", text=text)
    for number, output in enumerate(output for output in outputs if output.output_type != "stream"):
        data = _stored_data(output.data, f"T_{16 * count + number:05x}", measured)
        if data:
            options = {"execution_count": count} if output.output_type == "execute_result" else {}
            yield new_output(output.output_type, data, **options)


def _stored_data(data: dict[str, Any], table_id: str, measured: bool) -> dict[str, Any]:
    picture = next((data[kind] for kind in PICTURES if kind in data), None)
    if picture is not None and measured:
        return {}
    texts = {kind: without_variation(text) for kind, text in data.items() if kind.startswith("text/")}
    if "text/html" in texts:
        texts["text/html"] = re.sub(r"\bT_[0-9a-f]{5}", table_id, texts["text/html"])
        if measured and "<table" in texts["text/html"]:
            texts = {"text/html": without_measurements(texts["text/html"])}
    if picture is None:
        return texts
    return texts | {"image/png": base64.b64encode(palette_png(base64.b64decode(picture))).decode()}


def without_measurements(table: str) -> str:
    """Return an HTML table with an ellipsis for every value under or beside a heading of what was measured."""
    from bs4 import BeautifulSoup

    page = BeautifulSoup(table, "html.parser")
    columns = _headings(page)
    for row in page.select("tbody tr"):
        cells, beside = row.find_all("td"), [head.get_text(" ", strip=True) for head in row.find_all("th")]
        for cell, above in zip(cells, columns[len(columns) - len(cells) :], strict=True):
            if cell.get_text(strip=True) and any(map(_is_measured, [above, *beside])):
                cell.string = WITHHELD
    return f"{page}{NOTE}" if WITHHELD in page.get_text() else str(page)


def _headings(page: Any) -> list[str]:
    """Return the heading of each column of a table, those of several levels joined."""
    rows = [
        [cell.get_text(" ", strip=True) for cell in row.find_all("th") for _ in range(int(cell.get("colspan", 1)))]
        for row in page.select("thead tr")
    ]
    return [" ".join(levels).strip() for levels in zip(*rows, strict=True)]


def _is_measured(heading: str) -> bool:
    return "published" not in heading and MEASURED_HEADINGS.search(heading) is not None


def _nearest(shown: str, stored: str) -> str:
    same = abs(float(shown) - float(stored)) <= CLOSE * max(1.0, abs(float(stored)))
    return stored if same else shown
