"""From where a head is judged, and how the world of a run is tied to the true one."""

from dataclasses import dataclass

import torch

from pmv.geometry.camera import Camera


@dataclass(frozen=True)
class View:
    """A direction that heads are judged from.

    Attributes:
        name: unique among a subject's views.
        group: the column of the table that it counts in, one of `GROUPS`.
        yaw, pitch: degrees beside the input view.
    """

    name: str
    group: str
    yaw: float = 0.0
    pitch: float = 0.0


GROUPS = ("input", "±15°", "±30°", "45–60°", "±90°", "180°", "pitch ±20°")
"""Groups of views, in the order of the table; figures are means over a group's views."""

INPUT = View("input", "input")

VIEWS = (
    INPUT,
    View("yaw-15", "±15°", -15),
    View("yaw+15", "±15°", 15),
    View("yaw-30", "±30°", -30),
    View("yaw+30", "±30°", 30),
    View("yaw-45", "45–60°", -45),
    View("yaw+45", "45–60°", 45),
    View("yaw-60", "45–60°", -60),
    View("yaw+60", "45–60°", 60),
    View("yaw-90", "±90°", -90),
    View("yaw+90", "±90°", 90),
    View("yaw180", "180°", 180),
    View("pitch-20", "pitch ±20°", 0, -20),
    View("pitch+20", "pitch ±20°", 0, 20),
)
"""What a synthetic head is drawn from; the first is the input view."""


def cameras_of(views: tuple[View, ...], yaw: float, pitch: float) -> Camera:
    """Cameras on EG3D's sphere around the origin, beside an input view at `yaw` and `pitch` degrees."""
    yaws = torch.tensor([view.yaw + yaw for view in views]).deg2rad()
    pitches = torch.tensor([view.pitch + pitch for view in views]).deg2rad()
    return Camera.orbit(yaws, pitches)


@dataclass(frozen=True)
class Tie:
    """The rigid motion between the true world and a run's.

    Which world a photo is of, the photo cannot say: a run that takes a camera for 2° lower than it was, and draws the
    head as much lower, has made no error. So the worlds are tied by the input view, which is one picture in both: T =
    cam2world(run, input) · cam2world(true, input)⁻¹ takes points of the true world to the run's. What is left to judge
    is the shape of the head as the input camera sees it.

    Attributes:
        true, run: the input view's camera in the true world and in the run's, batches of one.
    """

    true: Camera
    run: Camera

    def to_run(self, cameras: Camera) -> Camera:
        """Cameras of the true world in the run's; intrinsics are kept."""
        return _carried(self.true, self.run, cameras)

    def to_true(self, cameras: Camera) -> Camera:
        """Cameras of the run's world in the true one; the inverse of `to_run`."""
        return _carried(self.run, self.true, cameras)


def _carried(here: Camera, there: Camera, cameras: Camera) -> Camera:
    # in double precision, so that going there and back is exact to float32
    relative = torch.linalg.inv(here.cam2world.double()) @ cameras.cam2world.double()
    return Camera((there.cam2world.double() @ relative).to(cameras.cam2world), cameras.intrinsics)
