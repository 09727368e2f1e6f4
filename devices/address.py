"""Where a device is found."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """Where a device is found: a control system and the name it has there.

    >>> Address.parse("ca://SIM:GON:THETA")
    Address(scheme='ca', name='SIM:GON:THETA')
    >>> str(Address.parse("ca://SIM:GON:THETA"))
    'ca://SIM:GON:THETA'
    """

    scheme: str
    name: str

    def __str__(self) -> str:
        """Return the address as it stands in the file."""
        return f"{self.scheme}://{self.name}"

    @classmethod
    def parse(cls, text: object) -> "Address":
        """Split ``scheme://name``.

        Raises
        ------
        ValueError
            If the text has another form.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or not (match := re.fullmatch(r"(\w+)://(\S+)", text)):
            raise ValueError(
                f"{text!r} is not an address: expected scheme://name, such as ca://GON:THETA"
            )
        return cls(*match.groups())
