"""A setting of a client that others wrote, and the values that settings are made of."""

from math import floor, log10

import msgspec

from bltybench.policies.advice.prescription import Prescription


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One client library or gateway."""

    name: str
    language: str
    text: str
    note: str


class Values:
    """The numbers and names that the settings need."""

    def __init__(self, prescription: Prescription, model: str, base_url: str, timeout_s: int) -> None:
        self.prescription = prescription
        self.model_id = model
        self.model = quoted(model)
        self.base_url = quoted(base_url)
        self.url = base_url
        self.timeout_s = timeout_s
        self.retries = prescription.max_retries
        self.spacing_s = prescription.spacing_s


def quoted(text: str) -> str:
    """Return a Python literal with double quotes."""
    return msgspec.json.encode(text).decode()


def rounded_down(value: float) -> float:
    """Round down to four significant digits."""
    unit = 10.0 ** (floor(log10(value)) - 3)
    return float(f"{floor(value / unit + 1e-6) * unit:.4g}")
