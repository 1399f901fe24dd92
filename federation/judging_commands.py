"""`comity attack` and `comity card`: what a model gives away, and what it is worth.

Guarantees: parses, calls, prints. Leaves to others: everything else (`attack`, `card`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from federation.assumptions import tables
from federation.terminal import JsonFlag, out, print_json

if TYPE_CHECKING:
    from federation.attack import Attack
    from federation.card import Judged, ModelCard

__all__ = ["attack_command", "card"]

ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A party's model: PARTY/models/JOB.json.")
]


def attack_command(
    model: ModelFile,
    canaries: Annotated[
        int, typer.Option("--canaries", help="Made-up people to plant by fair coins.")
    ] = 1000,
    models: Annotated[
        int,
        typer.Option(
            "--models", help="Trainings for shadow models and their targets, 8 or more; 0 for none."
        ),
    ] = 64,
    unsafe_without: Annotated[
        str | None,
        typer.Option(
            "--unsafe-without",
            metavar="noise|clipping",
            help="Break this on purpose, to see that the attack finds it; nothing is kept.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Attack a model's training on the party's own rows: which epsilon is refuted?

    Everything stays at the party; nothing is charged. Leaves with 1 if it is the stated one.

    Example: comity attack out/demo/retailer/models/lookalike-model.json
    """
    from federation.attack import Attack, attack
    from federation.vertical_attack import VerticalAttack, attack_columns
    from federation.vertical_commands import print_vertical_attack
    from federation.vertical_rows import is_part
    from federation.watch import watched
    from privacy.attacks import Flaw

    if unsafe_without is not None and unsafe_without not in set(Flaw):
        allowed = " or ".join(Flaw)
        raise typer.BadParameter(f"--unsafe-without takes {allowed}, got {unsafe_without!r}")
    flaw = None if unsafe_without is None else Flaw(unsafe_without)
    found: Attack | VerticalAttack
    with watched():
        if is_part(model):
            found = attack_columns(model, canaries=canaries, flaw=flaw)
        else:
            found = attack(model, canaries=canaries, models=models, flaw=flaw)
    if as_json:
        more = {"refuted": found.refuted, "warning": found.warning}
        print_json(found.model_dump(mode="json") | more)
    elif isinstance(found, VerticalAttack):
        print_vertical_attack(found)
    else:
        _print_attack(found)
    if found.refuted:
        raise typer.Exit(1)


def card(
    model: ModelFile,
    facts: Annotated[
        bool,
        typer.Option("--facts", help="Facts alone, which every party of the agreement has."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the card of a model: data, privacy, performance and groups on the party's own people.

    Writes PARTY/cards/JOB.html and JOB.json. Everything stays at the party; nothing is charged.

    Example: comity card out/demo/retailer/models/lookalike-model.json
    """
    from federation.card import ModelCard, make_card, write_card
    from federation.party import PartyFolder
    from federation.vertical_card import VerticalCard, make_vertical_card, write_vertical_card
    from federation.vertical_commands import print_vertical_card
    from federation.vertical_rows import is_part
    from federation.watch import watched

    if model.is_dir():
        raise typer.BadParameter(f"expected a model, PARTY/models/JOB.json, got the folder {model}")
    folder = PartyFolder(model.resolve().parent.parent)
    made: ModelCard | VerticalCard
    with watched():
        make = make_vertical_card if is_part(model) else make_card
        made = make(model, facts_alone=facts)
    place = folder.card(f"{made.spec.name}.facts" if facts else made.spec.name)
    if isinstance(made, VerticalCard):
        write_vertical_card(made, place)
    else:
        write_card(made, place)
    if as_json:
        print_json(made)
    elif isinstance(made, VerticalCard):
        print_vertical_card(made, place)
    else:
        _print_card(made, place)


def _print_attack(found: "Attack") -> None:
    table = Table("attack", "trainings", "guesses", "right", "epsilon is at least", "at most shown")
    guesses, exposure = found.canaries.guesses, found.exposure
    table.add_row(
        f"{guesses.coins} planted canaries, every sum seen",
        str(found.canaries.trainings),
        str(guesses.made),
        str(guesses.correct),
        f"{found.canaries.epsilon:.3f}",
        f"{found.canaries.most:.3f}",
    )
    if exposure is not None:
        rates = exposure.rates
        table.add_row(
            "shadow models, published models seen",
            f"{exposure.shadows} + {rates.positives + rates.negatives}",
            str(rates.positives + rates.negatives),
            str(rates.true_positives + rates.negatives - rates.false_positives),
            f"{exposure.epsilon:.3f}",
            f"{exposure.most:.3f}",
        )
    out.print(table)
    if exposure is not None:
        out.print(
            f"own rows told apart with AUC {exposure.auc:.3f} (0.5 is guessing); at 1 % false "
            f"alarms {exposure.true_positive_rate:.1%} of them are found"
        )
    if found.flaw is not None:
        out.print(f"without {found.flaw.value}, on purpose: nothing was kept", style="bold yellow")
    if found.stated_epsilon is None:
        said = "no epsilon is stated, none holds"
    else:
        said = f"stated: epsilon {found.stated_epsilon:g}"
    if found.warning:
        out.print(f"[bold yellow]warning[/] {escape(found.warning)}")
    verdict = "[bold red]refuted[/]" if found.refuted else "not refuted"
    out.print(
        f"{said}, for a person in {tables(found.tables)}, at delta {found.delta:g}; at least "
        f"{found.epsilon:.3f} with {found.confidence:.0%} confidence"
        + ("" if found.stated_epsilon is None else f": {verdict}")
    )


def _print_card(made: "ModelCard", place: Path) -> None:
    if made.epsilon is None:
        out.print("no epsilon holds: trained without noise", style="bold red")
    else:
        out.print(
            f"epsilon {made.epsilon:g} at delta {made.delta:g} for a person in "
            f"{tables(made.tables)}"
        )
    if made.hidden_share is not None:
        out.print(made.hidden_share.sentence, markup=False)
    if made.judged is not None:
        _print_judged(made.judged)
    private = made.judged is not None or made.attack is not None
    whose = f", for {made.party} alone" if private else ", of facts alone"
    out.print(f"card{whose}: {place}.html", markup=False)


def _print_judged(judged: "Judged") -> None:
    out.print(
        f"{judged.eligible:,} of {judged.rows:,} rows judged, {judged.positives:,} of them positive"
    )
    if judged.quality is not None:
        table = Table("model", "AUC", "average precision", "lift at 5 %", "lift at 10 %")
        for name, quality in (("as published", judged.quality), ("averaged once", judged.one_shot)):
            if quality is not None:
                figures = (
                    quality.auc,
                    quality.average_precision,
                    quality.lift_at_5,
                    quality.lift_at_10,
                )
                table.add_row(
                    name, *(f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in figures)
                )
        out.print(table)
    for one in judged.fairness:
        for group in one.groups:
            if group.adverse:
                name = "other" if group.group is None else group.group
                out.print(
                    f"[bold yellow]below four fifths[/] {escape(f'{one.feature} {name}')}: chosen "
                    f"{group.ratio:.2f} times as often as the group that is chosen most"
                )
