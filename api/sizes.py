"""How large one request may be."""

from dataclasses import dataclass
from typing import Final

from api.settings import ApiSettings


@dataclass(slots=True)
class Sizes:
    """One for the process: schemas are made before there are settings."""

    body: int = 65_536  # bytes of a request
    head: int = 32_768  # bytes of a request's headers
    wait: int = 30  # seconds of a long poll
    data_depth: int = 16
    data_values: int = 2_000

    def set(self, settings: ApiSettings) -> None:
        """Take them from the settings."""
        self.body, self.head, self.wait = settings.body_limit, settings.head_limit, settings.wait_limit
        self.data_depth, self.data_values = settings.data_depth_limit, settings.data_values_limit


SIZES: Final = Sizes()
