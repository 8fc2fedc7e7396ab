"""What a studio is opened with, and what its page and its server share."""

from dataclasses import dataclass
from pathlib import Path

from pmv.apps.studio.jobs import Queue
from pmv.apps.studio.turning import Turntable
from pmv.apps.studio.workspace import People


@dataclass(frozen=True)
class Settings:
    """How a studio is opened.

    Attributes:
        root: folder of all that it keeps.
        generators: that may be chosen, names or paths; the first is the usual one.
        presets: that may be chosen, names or .yaml files; the first is the usual one.
        host, port: where it listens; port None = the first free one from 7860 on.
        share: also through a tunnel of Gradio's, under an address that the whole world can ask for.
        auth: file of accounts, see `read_accounts`; None = no accounts.
        device: where it computes, "auto", "cpu" or "cuda".
        most_upload_mb: megabytes of a picture.
        most_waiting: jobs that wait at a time.
    """

    root: Path
    generators: tuple[str, ...] = ("heads",)
    presets: tuple[str, ...] = ("demo", "fidelity", "hfgi3d")
    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    auth: Path | None = None
    device: str = "auto"
    most_upload_mb: int = 50
    most_waiting: int = 100


class Studio:
    """An open studio.

    Attributes:
        settings: how it was opened. people: their workspaces. queue: what is done one after another.
        device: where it computes. turntable: draws the heads that are looked at.
        addresses: that it can be asked for by, its own first, then the tunnel's.
    """

    def __init__(self, settings: Settings, people: People, queue: Queue, device: str) -> None:
        self.settings, self.people, self.queue, self.device = settings, people, queue, device
        self.turntable = Turntable(device)
        self.addresses: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """That a browser on this machine asks for."""
        return self.addresses[0]
