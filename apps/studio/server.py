"""The studio's server: the page behind the guard, the queue beside it, and files handed to their owners alone."""

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

from pmv.apps.studio.files import find
from pmv.apps.studio.guard import Guard, identity_of
from pmv.apps.studio.jobs import Queue
from pmv.apps.studio.opened import Settings, Studio
from pmv.apps.studio.reach import Door, check_reach, is_loopback, read_accounts
from pmv.apps.studio.workspace import People
from pmv.errors import AssetsError, InputError, disk_errors
from pmv.files.locks import Taken, held
from pmv.generators import resolve_generator
from pmv.pipeline.config import load_config
from pmv.pipeline.device import pick_device
from pmv.stages.table import TABLE

_REPORT_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'self'"
"""A report's scripts run, but not as the studio's: they see neither its cookies nor its pages."""

log = logging.getLogger(__name__)


def serve(settings: Settings, wait: Any, opened: Any = lambda studio: None) -> None:
    """Open a studio and keep it open until `wait` returns or raises; then what is under way is stopped, keeping what
    it has done.

    Args:
        wait: called without arguments once the studio is open.
        opened: called with the `Studio` before.

    Raises:
        InputError: others could come in without a password, a generator or preset is none, another studio works in the
            folder, or its port is taken. AssetsError: Gradio is not installed.
    """
    accounts = None if settings.auth is None else read_accounts(settings.auth)
    check_reach(settings.host, settings.share, accounts)
    for generator in settings.generators:
        resolve_generator(generator)
    for preset in settings.presets:
        load_config(TABLE, [preset])
    device = str(pick_device(settings.device))
    _quiet_gradio(settings.root)
    with disk_errors(settings.root):
        people = People(settings.root)
        try:
            with held(settings.root / ".lock"):
                _serve(settings, people, accounts, device, wait, opened)
        except Taken as taken:
            raise InputError(f"{settings.root}: another studio works in this folder; give another --out") from taken


def _quiet_gradio(root: Path) -> None:
    """Tell Gradio to ask nobody on the network for anything and to keep its files in the studio's folder, before it is
    imported for the first time. AssetsError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(root.resolve() / "cache")
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)
    if importlib.util.find_spec("gradio") is None:
        raise AssetsError('the studio needs Gradio: pip install "pmv[studio]"')


def _serve(
    settings: Settings, people: People, accounts: dict[str, str] | None, device: str, wait: Any, opened: Any
) -> None:
    from starlette.middleware import Middleware
    from starlette.routing import Route

    from pmv.apps.studio.page import build_page

    studio = Studio(settings, people, Queue(settings.most_waiting), device)
    page = build_page(studio)
    open_to_others = settings.share or not is_loopback(settings.host)
    hosts = None if open_to_others else frozenset({"localhost", "127.0.0.1", "[::1]", settings.host})
    most = settings.most_upload_mb * 1_000_000
    guard = Middleware(Guard, hosts=hosts, most_upload=most, with_cookies=accounts is None)  # pyright: ignore
    cache = settings.root / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    studio.queue.start([head.path for head in people.everybody_s_heads()])
    try:
        try:
            page.blocks.launch(
                server_name=settings.host,
                server_port=settings.port,
                share=settings.share,
                auth=None if accounts is None else Door(accounts),
                max_file_size=most,
                blocked_paths=[str(people.folder.resolve())],
                allowed_paths=[],
                app_kwargs={"middleware": [guard], "routes": [Route("/studio/files/{head}/{name}", _file(studio))]},
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                enable_monitoring=False,
                strict_cors=True,
                footer_links=[],
                run_history=False,
                theme=page.theme,
                css=page.css,
                head=page.head,
            )
        except OSError as error:
            raise InputError(f"--port {settings.port}: cannot be listened on; give another") from error
        studio.addresses = (page.blocks.local_url,)
        if settings.share:
            if not page.blocks.share_url:
                raise InputError("--share: Gradio's tunnel does not open; look at the network, or leave it out")
            studio.addresses += (page.blocks.share_url,)
        opened(studio)
        wait()
    finally:
        studio.queue.end()
        page.blocks.close(verbose=False)


def _file(studio: Studio) -> Any:
    """The route of a head's files: whose head it is not, to him it is not there."""
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response

    def respond(request: Request) -> Response:
        identity = identity_of(request)
        try:
            if identity is None:
                raise InputError("there is no such file")
            head = studio.people.workspace(identity).head(request.path_params["head"])
            path, kind = find(head, request.path_params["name"])
        except InputError as error:
            return PlainTextResponse(str(error), 404)
        headers = {"cache-control": "private, no-store"}
        if kind == "text/html":
            return FileResponse(path, media_type=kind, headers={**headers, "content-security-policy": _REPORT_POLICY})
        shown_in_page = kind in ("image/jpeg", "video/mp4")
        name = path.name if shown_in_page else f"{head.about.name.rpartition('.')[0] or head.about.name}-{path.name}"
        disposition = "inline" if shown_in_page else "attachment"
        return FileResponse(path, media_type=kind, filename=name, headers=headers, content_disposition_type=disposition)

    return respond
