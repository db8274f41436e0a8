"""Groups of commands: a command's return value is printed; an error for users is one line on standard error."""

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

from blocks.common.errors import PortError
from deployments.environment_files import environment_file
from deployments.secret_store import SecretUnavailable
from runtime.foreign_text import log_visible_text, print_text
from tasks.shared.rules.refusal import Refusal

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
REFUSALS: tuple[type[Exception], ...] = (PortError, Refusal, SecretUnavailable, OSError)

Environment = Annotated[str, typer.Option(help="The environment: a file of deployments/environments, without .toml.")]
By = Annotated[str, typer.Option(help="Your name or e-mail address; it is recorded.")]


class CommandGroup(TyperGroup):
    """A group whose error for an unknown command lists the known ones."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first argument names."""
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no such command {args[0]!r}; there are: {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class Group(typer.Typer):
    """A group whose commands end with the exit code `refused` after an error that is meant for users.

    The names of an environment and of models (the parameters `environment`, `model` and `models`) are checked first.
    `about` is shown by `--help`; `also` are further exceptions whose message is meant for users.
    """

    def __init__(self, about: str, *, refused: int = 1, also: tuple[type[Exception], ...] = ()) -> None:
        super().__init__(
            cls=CommandGroup,
            help=about,
            add_completion=False,  # a shell completes the words after a program's name: `python` would be that name
            no_args_is_help=True,
            rich_markup_mode=None,  # brackets are plain text
            pretty_exceptions_enable=False,  # they print variables, which may contain secrets
        )
        self._refused = refused
        self._errors: tuple[type[Exception], ...] = (*REFUSALS, *also)

    def command(self, name: str | None = None, *, refused: int = 0, **more: Any) -> Callable[[F], F]:
        """Add a function as a command; the text that it returns is printed."""

        def add(function: F) -> F:
            super(Group, self).command(name, **more)(self._printing(function, refused or self._refused))
            return function

        return add

    def _printing(self, function: Callable[P, str | None], code: int) -> Callable[P, None]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            log_visible_text()
            try:
                _check_names(kwargs)
                if (text := function(*args, **kwargs)) is not None:
                    print_text(text)
            except self._errors as error:
                print_text(f"error: {error}", file=sys.stderr)
                raise typer.Exit(code) from error

        return run


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse an environment or a model that does not exist, before a command looks for the stack."""
    if "environment" in values:
        environment_file(values["environment"])
    if models := [name for name in (values.get("model"), *(values.get("models") or ())) if name]:
        from tasks.shared.models import load_model

        for name in models:
            load_model(name)


def text_or_exit(text: str, passed: bool) -> str:
    """Return the text of a check that passed; print the text of one that did not, and end with exit code 1."""
    if passed:
        return text
    print_text(text)
    raise typer.Exit(1)
