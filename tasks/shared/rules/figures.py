"""Plots as PNG, drawn off-screen. Only this module imports matplotlib, and only when it draws."""

import io
from base64 import b64encode
from collections.abc import Callable
from typing import Any

INK, FAINT, GREY, BLUE, RED = "#2b2f36", "#c9ced6", "#56606b", "#0072B2", "#D55E00"
"""Okabe and Ito's palette: distinguishable with common colour blindness."""


def drawn_png(draw: Callable[[Any], None], size: tuple[float, float], font_size: int) -> bytes:
    """Return the PNG of a figure that `draw` fills. The size is in inches, of 100 pixels each."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inks = {"text.color": INK, "axes.edgecolor": FAINT, "axes.labelcolor": INK}
    spines = {"axes.spines.top": False, "axes.spines.right": False}
    text = {"font.size": font_size, "text.parse_math": False}  # a class may be called `$a_$`
    with rc_context(inks | spines | text):
        figure = Figure(figsize=size, dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def png_url(image: bytes) -> str:
    """Return a URL that holds a PNG file, so that the page that shows it needs no other."""
    return "data:image/png;base64," + b64encode(image).decode()
