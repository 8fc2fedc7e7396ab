"""How much every method may spend: the same number of optimisation steps, whatever it spends them on."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Steps and sizes.

    Attributes:
        name: a key of `BUDGETS`.
        latent, coarse, tune: Adam steps of pmv's three stages. A method without one of them spends its steps in the
            stage that is nearest, so that `total` is the same for all. presets: pmv's, laid over the base config.
            settings: laid over these. depth: rays a side of the depth maps that are judged.
    """

    name: str
    latent: int
    coarse: int
    tune: int
    presets: tuple[str, ...] = ("demo",)
    settings: tuple[str, ...] = ()
    depth: int = 128

    @property
    def total(self) -> int:
        """Adam steps in all."""
        return self.latent + self.coarse + self.tune

    def scaled(self, part: float) -> "Budget":
        """The budget with `part` of the tuning steps; of the trade-off curves, where latent and coarse are shared."""
        return Budget(
            self.name,
            self.latent,
            self.coarse,
            max(1, round(part * self.tune)),
            self.presets,
            self.settings,
            self.depth,
        )

    def steps(self, latent: int | None = None, coarse: int | None = None, tune: int | None = None) -> Sequence[str]:
        """Settings of a pmv run for the steps of each stage; None = the budget's."""
        values = {"latent": latent, "coarse": coarse, "tune": tune}
        return [f"{stage}.steps={getattr(self, stage) if n is None else n}" for stage, n in values.items()]


BUDGETS = {
    # two idle processor cores: a minute or two a run
    "quick": Budget("quick", 30, 15, 45, depth=64),
    # the preset demo's own steps
    "demo": Budget("demo", 60, 30, 110, depth=64),
    # what issue and README tables are of; a GPU, or an hour of two cores for each head
    "standard": Budget("standard", 200, 80, 300, settings=("coarse.depth_resolution=128",)),
    # a GPU
    "full": Budget(
        "full",
        500,
        200,
        1000,
        settings=("coarse.depth_resolution=128", "coarse.views=24", "coarse.around=6", "tune.views_per_step=2"),
    ),
}
"""By name, from the smallest."""
