"""Contests as rows of the day."""

from ...bench.contest import Contest, Race
from ...bench.replays import ROUNDS
from .rows import Day

QUICK_ROUNDS = 2


def measure(day: Day, contest: Contest, rivals: list[str] | None = None) -> None:
    """A row for each rival, or for those that are named; one that raises gets a row with its error, and one that took the process
    with it, none again.
    """
    if contest.name in day.done:
        return
    race = Race(contest, day.setting(), QUICK_ROUNDS if day.quick else ROUNDS)
    for rival in contest.rivals:
        if rivals is None or rival in rivals:
            day.attempt(f"{contest.name} | {rival}", lambda: race.prepare(rival), kind="ready")
    for row in race.times():
        day.add("time", contest.name, **row)
