"""A few seconds of `make fuzz`, with the same examples each time."""

import pytest
from hypothesis import strategies as st

from tests.fuzz.__main__ import MAX_BYTES, TooMuch, main, run_round
from tests.fuzz.parsers import PARSERS, Target
from tests.fuzz.servers import SERVERS


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_answers_or_refuses_whatever_it_is_given(name: str) -> None:
    run_round(PARSERS[name], 1, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_a_server_has_no_internal_error_whatever_it_is_asked(name: str) -> None:
    with SERVERS[name]() as target:
        run_round(target, 1, 40)


def test_an_example_that_takes_too_much_memory_is_a_fault() -> None:
    with pytest.raises(TooMuch, match="MiB for one example"):
        run_round(Target(st.just(MAX_BYTES + 2**26), lambda size: b"x" * size), 1, 1)


def test_the_command_prints_the_seeds_of_its_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "0", "--seed", "7", "--only", "delimited", "--examples", "9"]) == 0
    assert capsys.readouterr().out == "delimited: 9 examples, seeds 7 to 7: no fault\n"


def test_a_fault_is_shown_with_the_way_to_repeat_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(number: int) -> None:
        assert number < 10

    monkeypatch.setitem(PARSERS, "delimited", Target(st.integers(), fault))
    with pytest.raises(AssertionError):
        main(["--seed", "7", "--only", "delimited"])
    assert "make fuzz ARGS=\"--only 'delimited' --seed 7 --examples 200 --minutes 0\"" in capsys.readouterr().out
