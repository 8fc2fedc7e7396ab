"""What all parts of the page go through: whose request it is, which head it means, and how a mistake is told."""

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from pmv.apps.studio.guard import identity_of
from pmv.apps.studio.opened import Studio
from pmv.apps.studio.workspace import HeadFolder, Workspace
from pmv.errors import InputError, PmvError

_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:;,]+/)+")

log = logging.getLogger(__name__)

Handler = Callable[..., Any]


class Desk:
    """Serves one studio's page."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def workspace(self, request: gr.Request) -> Workspace:
        """Of whoever sent a request. InputError where that is nobody: a browser that keeps no cookies."""
        identity = None if request.request is None else identity_of(request.request)
        if identity is None:
            raise InputError(
                "your browser keeps no cookies, by which your heads are known as yours; allow them for this page"
            )
        return self.studio.people.workspace(identity)

    def head(self, name: Any, request: gr.Request) -> HeadFolder:
        """The head that a request means. InputError where it is not one of whoever sent it."""
        return self.workspace(request).head(name)

    def idle(self, head: HeadFolder) -> HeadFolder:
        """InputError where a head is being worked on: what it is made of must not be changed meanwhile."""
        if self.studio.queue.place(head.path) is not None:
            raise InputError("this head is being worked on, or waits for it; wait for that, or stop it")
        return head


def told(handler: Handler) -> Handler:
    """A handler whose user's mistakes are told in one line on the page, without the folders of this machine."""

    @functools.wraps(handler)
    def careful(*arguments: Any, **named: Any) -> Any:
        try:
            return handler(*arguments, **named)
        except PmvError as error:
            raise gr.Error(public(str(error)), duration=10, print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            log.exception("the page's %s failed", handler.__name__)
            raise gr.Error("a bug; the studio's log says more", print_exception=False) from error

    return careful


def public(message: str) -> str:
    """A message without the folders of this machine in it."""
    return _FOLDERS.sub("", message)


def file_of(upload: Any) -> Path:
    """The file that a browser sent. InputError where there is none."""
    if not isinstance(upload, str) or not Path(upload).is_file():
        raise InputError("choose a picture first")
    return Path(upload)


WORK: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1, "api_visibility": "private"}
"""Of handlers that compute: one at a time, whoever asks, so that memory is bounded."""
LIGHT: dict[str, Any] = {"concurrency_id": "light", "concurrency_limit": 8, "api_visibility": "private"}
"""Of those that look something up."""
