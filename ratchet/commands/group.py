"""A group of commands: each prints what it returns, and what it refuses is a line on standard error, no traceback."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

from blocks.common.errors import PortError
from deployments.secret_store import SecretUnavailable
from tasks.shared.rules.refusal import Refusal

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
REFUSALS: tuple[type[Exception], ...] = (PortError, Refusal, SecretUnavailable, OSError)

Environment = Annotated[str, typer.Option(help="The environment to use: a file of deployments/environments.")]
By = Annotated[str, typer.Option(help="Your name or e-mail address; it is written down.")]


class Words(TyperGroup):
    """Refuses an unknown command with those that there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of the first word."""
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no such command {args[0]!r}; there are: {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class Group(typer.Typer):
    """A group whose commands end with the exit code `refused` after an error that is meant for people.

    Args:
        about: one sentence, shown by `--help`.
        refused: the exit code.
        also: further exceptions whose message is meant for people.
    """

    def __init__(self, about: str, *, refused: int = 1, also: tuple[type[Exception], ...] = ()) -> None:
        super().__init__(
            cls=Words,
            help=about,
            no_args_is_help=True,
            rich_markup_mode=None,  # brackets are text
            pretty_exceptions_enable=False,  # they print variables, which may be secrets
        )
        self._refused = refused
        self._errors: tuple[type[Exception], ...] = (*REFUSALS, *also)

    def command(self, name: str | None = None, *, refused: int = 0, **more: Any) -> Callable[[F], F]:
        """Add a function as a command; its text is printed when it returns one."""

        def add(function: F) -> F:
            super(Group, self).command(name, **more)(self._told(function, refused or self._refused))
            return function

        return add

    def _told(self, function: Callable[P, str | None], code: int) -> Callable[P, None]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                if (said := function(*args, **kwargs)) is not None:
                    print(said)
            except self._errors as error:
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(code) from error

        return run


def judged(said: str, good: bool) -> str:
    """Return what a check has found; when it is not good, print it and end with exit code 1."""
    if good:
        return said
    print(said)
    raise typer.Exit(1)
