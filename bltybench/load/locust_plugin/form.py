"""The scenarios and targets as lists in the form with which Locust's web page starts a run.

A script in the page enters what a chosen scenario needs in the form's other fields.
"""

from collections.abc import Callable

import msgspec
from locust.web import WebUI

from bltybench.load.locust_plugin.options import parsed_options
from bltybench.text import sanitize

KEY = "bltybench"
"""Name of the tab, of its addresses, and of what the script in Locust's page receives."""
DEFAULT = "(default)"
"""The choice of the locustfile's scenario, or of the scenario's target."""
MAX_DESCRIPTION = 80


class FormValues(msgspec.Struct, rename="camel", frozen=True):
    """The values of a scenario for the form's fields, under the names of these fields."""

    user_count: int
    spawn_rate: float
    run_time: int | None
    host: str


class FormLists(msgspec.Struct, frozen=True):
    """The choices of the form, from their labels to the values of fields. The first one is the default."""

    scenarios: dict[str, FormValues]
    targets: dict[str, str]
    """The address of each target; empty for the scenario's own."""


def add_lists(web_ui: WebUI, lists: FormLists) -> None:
    """Let the form offer ``lists`` instead of text fields, and show the last choice."""
    web_ui.template_args[KEY] = msgspec.to_builtins(lists)
    options = parsed_options(web_ui.environment)
    update: Callable[[], None] = web_ui.update_template_args

    def update_with_lists() -> None:
        """Replace the fields, which Locust describes again whenever it shows the page."""
        update()
        fields = web_ui.template_args["extra_options"]
        for option, labels in (("scenario", [*lists.scenarios]), ("target", [*lists.targets])):
            field = fields[option]
            name = chosen(getattr(options, option))
            field["default_value"] = next((lab for lab in labels if chosen(lab) == name), labels[0])
            field["choices"] = labels
            field["help_text"] = None  # the list says it

    web_ui.update_template_args = update_with_lists  # type: ignore[method-assign]


def chosen(value: str) -> str | None:
    """Return the name in a choice of the form, or on the command line. None leaves it to the default."""
    name = value.partition(":")[0]
    return None if name in {"", DEFAULT} else name


def label(name: str, description: str) -> str:
    """Return a choice of the form, from which ``chosen`` returns the name."""
    return f"{name}: {sanitize(description, limit=MAX_DESCRIPTION)}"
