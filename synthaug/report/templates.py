"""The report's Jinja templates: pages and the style sheet they share."""

from __future__ import annotations

from importlib import resources

import jinja2


def render(name: str, **values: object) -> str:
    """Fill the template ``name`` of this room; text is escaped, a missing value is an error."""
    room = resources.files("synthaug.report")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda template: room.joinpath(template).read_text("utf-8")),
    )
    return environment.get_template(name).render(**values)
