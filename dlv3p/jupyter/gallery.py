"""Write executed notebooks as HTML pages that need no network, with an index of thumbnails.

    dlv3p gallery [NOTEBOOK ...]        (what `make gallery` calls, for all notebooks)

Pages go to outputs/gallery/. A notebook that is newer than its page is executed; the others are left as they are.
"""

import argparse
import base64
import html
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cityscapes.errors import MissingInputError, ParameterError, run_command
from cityscapes.files.atomic import write_bytes, write_text
from cityscapes.workspace import NOTEBOOKS, output_folder

THUMBNAIL = 480
"""Width in pixels of a picture in the index."""
FIRST = ("quickstart", "prepare_cityscapes", "train")
"""The notebooks that come first, because the others look at what they make."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1a1a }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem }
article { border: 1px solid #ccc; border-radius: 6px; padding: 1rem }
article img { max-width: 100%; height: auto }
a { color: #0b57a4 }
"""


def write_gallery(names: Sequence[str] = ()) -> Path:
    """Execute notebooks, by default all, write a page for each, and return the path of the index.

    Raises ParameterError for a name that is none of `notebooks/`, and whatever a notebook raises.
    """
    known = list_notebooks()
    if unknown := sorted(set(names) - set(known)):
        raise ParameterError(f"{unknown[0]!r}: no such notebook; there are {', '.join(known)}")
    folder = output_folder("gallery")
    for name in names or known:
        if _is_current(name):
            print(f"{name}: its page is up to date", flush=True)
            continue
        print(f"{name}: executing", flush=True)
        write_page(_execute(name), folder / f"{name}.html")
    pages = [name for name in known if (folder / f"{name}.html").is_file()]
    index = folder / "index.html"
    write_text(index, _index(pages))
    return index


def list_notebooks() -> list[str]:
    """Return the names of all notebooks, those first that others look at."""
    if not NOTEBOOKS.is_dir():
        raise MissingInputError(f"{NOTEBOOKS}: no such folder; the gallery needs the repository")
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    return sorted(names, key=lambda name: (name not in FIRST, name))


def write_page(notebook: Path, page: Path) -> None:
    """Write an executed notebook as one HTML file that loads nothing from elsewhere."""
    from nbconvert import HTMLExporter

    content, _ = HTMLExporter(embed_images=True).from_filename(str(notebook))
    write_text(page, without_network(content))


def without_network(content: str) -> str:
    """Return a page without the scripts that nbconvert fetches from the network: MathJax, RequireJS, Mermaid."""
    scripts = re.compile(r"<script\b(?:(?!</script>).)*?https://cdnjs\.(?:(?!</script>).)*</script>", re.DOTALL)
    return scripts.sub("", content)


def _is_current(name: str) -> bool:
    page = output_folder("gallery") / f"{name}.html"
    return page.is_file() and page.stat().st_mtime_ns > (NOTEBOOKS / f"{name}.ipynb").stat().st_mtime_ns


def _execute(name: str) -> Path:
    import papermill

    copy = output_folder("gallery") / f"{name}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"kernel_name": "python3", "progress_bar": False, "stdout_file": sys.stdout}
    papermill.execute_notebook(NOTEBOOKS / f"{name}.ipynb", copy, {}, **options)
    return copy


def _index(names: Sequence[str]) -> str:
    cards = "\n".join(_card(name) for name in names)
    title = "Gallery of the notebooks"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"</head>\n<body><h1>{title}</h1>\n<main>\n{cards}\n</main></body></html>\n"
    )


def _card(name: str) -> str:
    """Return the entry of a notebook: its title, its question, and its first picture."""
    import nbformat

    notebook = nbformat.read(output_folder("gallery") / f"{name}.ipynb", as_version=4)
    first = notebook.cells[0].source.split("\n")
    title = html.escape(first[0].lstrip("# "))
    question = html.escape(next((match[1] for line in first[1:] if (match := re.match(r"\*\*(.+?)\*\*", line))), ""))
    picture = next(_pictures(notebook), None)
    image = ""
    if picture is not None:
        write_bytes(output_folder("gallery") / "thumbnails" / f"{name}.png", _thumbnail(picture))
        image = f'<img src="thumbnails/{name}.png" alt="{title}">'
    heading = f'<h2><a href="{name}.html">{title}</a></h2>'
    return f'<article>{heading}<p>{question}</p><a href="{name}.html">{image}</a></article>'


def _pictures(notebook: Any) -> Iterator[bytes]:
    """Yield the PNG, GIF and JPEG outputs of a notebook."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind in ("image/png", "image/gif", "image/jpeg"):
                    yield base64.b64decode(data)


def _thumbnail(picture: bytes) -> bytes:
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the gallery and print where it is."""
    parser = argparse.ArgumentParser(
        prog="dlv3p gallery", description="Write executed notebooks as HTML pages that need no network, with an index."
    )
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="a name, such as evaluate; default: all")
    options = parser.parse_args(arguments)
    print(write_gallery(options.notebooks))
    return 0


if __name__ == "__main__":
    run_command(main)
