"""The error with which a rule refuses its input."""

from runtime.foreign_text import visible


class Refusal(Exception):
    """A rule refuses its input, with what a person needs to correct it. It is never retried.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        where: the place: a file with its line, a column, a row, a key.
        value: the wrong value, shown as Python writes it; left out when there is none.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, *, where: str = "", value: object = None, remedy: str = "") -> None:
        self.problem, self.where, self.value, self.remedy = problem, where, value, remedy
        place = f"{where}: " if where else ""
        shown = f" (value: {value!r})" if value is not None else ""
        text = f"{place}{problem}{shown}." + (f" {remedy}" if remedy else "")
        super().__init__(visible(text, keep="\n"))  # states of runs and logs show it as it is
