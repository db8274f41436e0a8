"""Text that comes from data or from people, in Markdown that a browser will show."""

import html
import re

_MARKUP = re.compile(r"([\\`*\[\]|~#!])|((?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def escape_markdown(text: object) -> str:
    """Return text on one line, escaped so that it never becomes markup, a link or an image, or ends a table cell."""
    marked = _MARKUP.sub(r"\\\g<0>", " ".join(str(text).split()))
    return html.escape(marked, quote=False).replace("://", "&#58;//").replace("@", "&#64;")
