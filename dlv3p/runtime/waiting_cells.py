"""Show below a cell that was run again while it still runs, as after a closed browser, how its first run is doing.

A kernel runs one cell after another, so the second run waits, and nothing would show for as long as a training takes.
Requests arrive in a thread of the kernel that is free meanwhile; there, those for the same cell are answered.
"""

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

SAID = (
    "This cell is running in this kernel already; this run waits, and shows how the first is doing.\n"
    "The square in the toolbar stops both."
)


class WaitingCells:
    """The runs of the current cell that wait in its kernel; without ipykernel 7, or outside a kernel, there are none.

    What is shown goes below all of them, and replaces what was shown before under the same MIME type.
    """

    def __init__(self) -> None:
        self._requests: list[Mapping[str, Any]] = []
        self._shown: dict[str, str] = {}
        self._lock = Lock()
        with suppress(ImportError):
            from IPython import get_ipython

            self._kernel = kernel = getattr(get_ipython(), "kernel", None)
            if getattr(kernel, "shell_channel_thread", None) and kernel.shell_stream:
                self._code = kernel.get_parent().get("content", {}).get("code")
                self._have_requests_received_by(self._look_and_pass_on)
                return
        self._kernel = None

    def show(self, kind: str, content: str | bytes) -> None:
        """Show content of a MIME type, such as text/plain or image/png."""
        text = content if isinstance(content, str) else b64encode(content).decode()
        with self._lock:
            if self._shown.get(kind) == text:
                return
            message = "update_display_data" if kind in self._shown else "display_data"
            self._shown[kind] = text
            for request in self._requests:
                self._display(message, kind, request)

    def close(self) -> None:
        """Leave all requests to the kernel again; what the waiting runs then print replaces what was shown."""
        if self._kernel is None:
            return
        self._have_requests_received_by(self._kernel.shell_channel_thread_main)
        with self._lock:
            for request in self._requests:
                self._send("clear_output", {"wait": True}, request)
            self._requests.clear()

    def _have_requests_received_by(self, receive: Any) -> None:
        stream, loop = self._kernel.shell_stream, self._kernel.shell_channel_thread.io_loop
        loop.add_callback(lambda: stream.on_recv(receive, copy=False))  # a stream belongs to its thread

    async def _look_and_pass_on(self, message: list[Any]) -> None:
        with suppress(Exception):  # nothing that goes wrong here may keep a request from the kernel
            self._look(message)
        await self._kernel.shell_channel_thread_main(message)

    def _look(self, message: list[Any]) -> None:
        session = self._kernel.session
        request = session.deserialize(session.feed_identities(message, copy=False)[1], content=False, copy=False)
        if request["msg_type"] != "execute_request" or session.unpack(request["content"])["code"] != self._code:
            return
        with self._lock:
            self._requests.append(request)
            self._send("stream", {"name": "stdout", "text": f"{SAID}\n"}, request)
            for kind in self._shown:
                self._display("display_data", kind, request)

    def _display(self, message: str, kind: str, request: Mapping[str, Any]) -> None:
        transient = {"display_id": f"{request['header']['msg_id']} {kind}"}
        self._send(message, {"data": {kind: self._shown[kind]}, "metadata": {}, "transient": transient}, request)

    def _send(self, message: str, content: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        self._kernel.session.send(self._kernel.iopub_socket, message, content, parent=request)
