"""A page as a person sees it: opened by a headless Chromium, with what it said on its console."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
SECONDS = 90


@dataclass(frozen=True)
class Seen:
    """What came of opening an address: the DOM after it was laid out, the browser's console, the picture."""

    dom: str
    console: str
    picture: Path


def browser() -> str:
    """Return the browser's program, or skip the test: `$RATCHET_CHROMIUM`, or one on the path."""
    named = os.environ.get("RATCHET_CHROMIUM", "")
    if found := shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None):
        return found
    pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path, and RATCHET_CHROMIUM names none")


def open_page(address: str, folder: Path, *, width: int = 1280, height: int = 2400) -> Seen:
    """Open an address in a fresh profile and return what is seen."""
    picture, dom = folder / f"{width}.png", _run(address, folder, width, height, "--dump-dom")
    shot = _run(address, folder, width, height, f"--screenshot={picture}")
    return Seen(dom.stdout, f"{dom.stderr}\n{shot.stderr}", picture)


def _run(address: str, folder: Path, width: int, height: int, *what: str) -> "subprocess.CompletedProcess[str]":
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--no-first-run", "--disable-background-networking", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", *what, address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done
