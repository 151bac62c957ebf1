"""The scenarios and targets as lists in the form with which Locust's web page starts a run."""

from collections.abc import Callable

from locust.web import WebUI

from bltybench.scenario.file.scenario_file import Book
from bltybench.text import sanitize

DEFAULT = "(default)"
"""The choice of the locustfile's scenario, or of the scenario's target."""
MAX_DESCRIPTION = 80


def add_lists(web_ui: WebUI, book: Book) -> None:
    """Let the form offer the scenarios and targets of ``book`` with descriptions, instead of text fields."""
    described = {
        "scenario": {name: scenario.title for name, scenario in book.scenarios.items()},
        "target": {name: target.base_url for name, target in book.targets.items()},
    }
    update: Callable[[], None] = web_ui.update_template_args

    def update_with_lists() -> None:
        """Replace the fields, which Locust describes again whenever it shows the page."""
        update()
        fields = web_ui.template_args["extra_options"]
        for option, descriptions in described.items():
            labels = {name: _label(name, description) for name, description in descriptions.items()}
            field = fields[option]
            field["default_value"] = labels.get(field["default_value"], DEFAULT)
            field["choices"] = [DEFAULT, *labels.values()]

    web_ui.update_template_args = update_with_lists  # type: ignore[method-assign]


def chosen(value: str) -> str | None:
    """Return the name in a choice of the form, or on the command line. None leaves it to the default."""
    name = value.partition(":")[0]
    return None if name in {"", DEFAULT} else name


def _label(name: str, description: str) -> str:
    return f"{name}: {sanitize(description, limit=MAX_DESCRIPTION)}"
