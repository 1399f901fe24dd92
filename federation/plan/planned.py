"""What a plan tells: of every job, of the agreed period, and of the whole."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from compliance.terms import ModelFamily
from federation.hidden_share import PlannedShare

__all__ = ["FullerTable", "MinimumSize", "Plan", "PlannedJob", "PlannedPeriod", "TrainingForecast"]


class Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MinimumSize(Closed):
    """A size below which nothing leaves.

    Attributes:
        term: of the agreement.
        people: that it takes.
    """

    term: str
    people: int


class TrainingForecast(Closed):
    """What the noise of a training is likely to do to the model; no bound.

    Attributes:
        family: of the model; forecasts of two families cannot be compared.
        rows: declared by all partners together.
        positives: of them, as asked with or assumed.
        assumed: whether `positives` was assumed: every declared row of the brand a customer of one
            partner.
        columns: of an encoded row.
        signal_to_noise: of the gradient over the whole training, by the measure of its family.
        lost: expected share of the AUC above 0.5, in (0, 1).
        auc: what a model is taken to reach without noise.
        auc_loss: what it is expected to lose of that.
        auc_loss_least: most measured trainings lost between this …
        auc_loss_most: … and this; how many of them is told in docs/privacy-budget.md.
        warning: set where the noise is likely to take a quarter or more.
    """

    family: ModelFamily
    rows: int
    positives: int
    assumed: bool
    columns: int
    signal_to_noise: float
    lost: float
    auc: float
    auc_loss: float
    auc_loss_least: float
    auc_loss_most: float
    warning: str | None = None


class PlannedJob(Closed):
    """One job, planned.

    Attributes:
        job: its name.
        computation: what it does.
        who: parties at work.
        epsilon: privacy loss of this job per person; 0 where nothing is charged.
        epsilon_spent: spent after it.
        epsilon_left: left of the budget after it.
        repeats: further such jobs that would fit after it, at most 1,000; None where nothing is
            charged.
        noise_multiplier: of every gradient step or sum, if it trains with noise.
        minimums: sizes that must hold while it runs.
        forecast: of what the noise does to the model, if it trains so.
        hidden_share: what to expect of it, if the job counts hidden positives.
        refused_by: the term that would refuse it, if any.
        remedy: the smallest change that would pass.
        note: what a reader should know.
        erasure: what will become of its model once somebody in it is erased, if it leaves one.
    """

    job: str
    computation: str
    who: tuple[str, ...]
    epsilon: float
    epsilon_spent: float
    epsilon_left: float
    repeats: int | None = None
    noise_multiplier: float | None = None
    minimums: tuple[MinimumSize, ...] = ()
    forecast: TrainingForecast | None = None
    hidden_share: PlannedShare | None = None
    refused_by: str | None = None
    remedy: str | None = None
    note: str = ""
    erasure: str | None = None


class PlannedPeriod(Closed):
    """What is lost within the agreed period, if all jobs run within it.

    Attributes:
        days: of the period.
        epsilon_cap: the agreement's ε per person and period.
        delta: at which it is agreed.
        epsilon_spent: by every job that would run.
        epsilon_left: after every job that would run.
    """

    days: int
    epsilon_cap: float
    delta: float
    epsilon_spent: float
    epsilon_left: float


class FullerTable(Closed):
    """A table of more rows than its party declares.

    Attributes:
        party: whose.
        declared_rows: as the file says.
        rows: of the table now, whether they may be used or not.
    """

    party: str
    declared_rows: int
    rows: int

    @property
    def sentence(self) -> str:
        """What becomes of it, and what to do."""
        return (
            f"{self.party} declares {self.declared_rows} rows, and its table has {self.rows}: a "
            f"job that may use more than {self.declared_rows} of them is refused under "
            f"datasets.declared_rows; declare {self.rows} at least, in a round figure"
        )


class UncountedTable(Closed):
    """A table whose rows could not be counted.

    Attributes:
        party: whose.
        told: why, and what is to be done.
    """

    party: str
    told: str

    @property
    def sentence(self) -> str:
        """What is not known for it."""
        return f"the rows of {self.party} were not counted: {self.told}"


class Plan(Closed):
    """A whole collaboration, planned.

    Attributes:
        name: of the collaboration.
        jobs: in order.
        epsilon_cap: the agreement's ε per person.
        epsilon_for_all: smallest budget that all jobs fit one after the other, those included that
            the agreed one has no room for; in hundredths.
        epsilon_spent: by every job that would run.
        epsilon_left: after every job that would run.
        delta: at which all of it is accounted.
        max_parties_per_person: tables that one person may stand in, and is protected in; None where
            no job trains or measures over rows.
        period: the period that all of them run in, as if they ran now; None where none is agreed.
        tables_looked_at: whether the parties' tables were.
        fuller: tables of more rows than are declared, of those that could be looked at.
        uncounted: tables that could not be counted.
    """

    name: str
    jobs: tuple[PlannedJob, ...]
    epsilon_cap: float
    epsilon_for_all: float
    epsilon_spent: float
    epsilon_left: float
    delta: float
    max_parties_per_person: int | None
    period: PlannedPeriod | None = None
    tables_looked_at: bool = True
    fuller: tuple[FullerTable, ...] = ()
    uncounted: tuple[UncountedTable, ...] = ()

    @property
    def refused(self) -> Sequence[PlannedJob]:
        """Jobs that would be refused."""
        return [job for job in self.jobs if job.refused_by]
