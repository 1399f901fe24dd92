"""What the command line prints of models over columns.

Leaves to others: reading the arguments (`judging_commands`), what is printed (`vertical_card`,
`vertical_attack`).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from federation.terminal import out

if TYPE_CHECKING:
    from federation.vertical_attack import VerticalAttack
    from federation.vertical_card import VerticalCard

__all__ = ["print_vertical_attack", "print_vertical_card"]


def print_vertical_attack(found: "VerticalAttack") -> None:
    """Print what an attack found."""
    guesses = found.planted.guesses
    out.print(
        f"{guesses.correct} of {guesses.made} planted labels guessed right: epsilon is at least "
        f"{found.planted.epsilon:.3f} with {found.confidence:.0%} confidence; no more than "
        f"{found.planted.most:.3f} could have been shown"
    )
    out.print(
        f"a partner tells real labels apart with AUC {found.noised.auc:.3f}; "
        f"{found.exact.auc:.3f} if they were not noised (0.5 is guessing)"
    )
    if found.flaw is not None:
        out.print(f"without {found.flaw.value}, on purpose: nothing was kept", style="bold yellow")
    if found.stated_epsilon is None:
        out.print("no label epsilon is stated: partners read every label", style="bold red")
        return
    if found.warning is not None:
        out.print(f"[bold yellow]warning[/] {found.warning}")
    verdict = "[bold red]refuted[/]" if found.refuted else "not refuted"
    out.print(f"stated: label epsilon {found.stated_epsilon:g}, delta 0: {verdict}")


def print_vertical_card(made: "VerticalCard", place: Path) -> None:
    """Print the outline of a card, and where it lies."""
    if made.label_epsilon is None:
        out.print("labels were not protected: every partner knows them", style="bold red")
    else:
        out.print(f"label epsilon {made.label_epsilon:g}, delta 0")
    for number, what in made.findings:
        out.print(f"round {number}: {what}", style="bold yellow")
    for one in made.judged:
        if one.without:
            out.print(f"scores {one.job} are without {', '.join(one.without)}", style="bold yellow")
        if one.quality is not None:
            auc = one.quality.auc
            out.print(
                f"scores {one.job}: AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) on "
                f"{one.judged:,} people with a label"
            )
        if one.hidden_share is not None:
            out.print(f"scores {one.job}: {one.hidden_share.sentence}", markup=False)
    private = made.rows is not None or made.judged or made.attack is not None
    whose = f", for {made.party} alone" if private else ", of facts alone"
    out.print(f"card{whose}: {place}.html", markup=False)
