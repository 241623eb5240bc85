"""In the site, what a docstring says of a parameter begins a line: `name: meaning`."""

import re
from typing import Any

import griffe

BEGINS = re.compile(r"\n(?=[a-z_]\w*(?:\([\w, ]*\))?(?:, [a-z_]\w*)*: )")


class ParameterLines(griffe.Extension):
    """Puts an end of line of Markdown (two spaces) before each."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = BEGINS.sub("  \n", obj.docstring.value)
