"""Open notebooks in JupyterLab so that they are not changed at once, and so that long messages break at spaces.

JupyterLab writes into a notebook which kernel it runs in, to the patch release of Python and the display name of the
kernel, and shows a notebook in which these differ as changed: a dot beside its name, and a question when it is closed.
Stored notebooks leave these facts out, as they differ from one machine to the next. `make lab` serves files by the
class below, which fills them in while a notebook is opened; the file stays as it is until a person saves it.

The same class adds a style sheet, which JupyterLab loads where it is asked to by `--LabApp.custom_css=True`. No setting
of Jupyter names a folder of such sheets but that of a person's own settings, which is not ours to write to.
"""

from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel, get_kernel_spec
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

STYLE = Path(__file__).parent / "lab_style"
"""The folder of the style sheet, `custom.css`."""


class OpenedNotebooks(AsyncLargeFileManager):
    """The server's files, in which a notebook of the suite names the kernel that is installed here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.parent is not None:  # the server, which builds its pages from here on
            self.parent.static_custom_path = [str(STYLE), *self.parent.static_custom_path]

    async def get(self, path: str, content: bool = True, **options: Any) -> dict[str, Any]:
        """Return a file or a folder as JupyterLab asks for it."""
        model = await super().get(path, content=content, **options)
        if model["type"] == "notebook" and content:
            name_kernel(model["content"]["metadata"])
        return model


def name_kernel(metadata: dict[str, Any]) -> None:
    """Write into the metadata of a notebook of the suite what its kernel, if it is installed, says of itself."""
    name = metadata.get("kernelspec", {}).get("name", "")
    if "dlv3p" not in metadata or name != "python3":
        return
    try:
        spec = get_kernel_spec(name)
    except NoSuchKernel:
        return
    from ipykernel.ipkernel import IPythonKernel  # which takes half a second, and not every file is a notebook

    metadata["kernelspec"] = {"display_name": spec.display_name, "language": spec.language, "name": name}
    metadata["language_info"] = dict(IPythonKernel.language_info)
