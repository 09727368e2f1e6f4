"""The commands of `mistral-txm`, grouped; each module adds its parsers and holds their functions."""


class CommandFailed(Exception):
    """A measurement failed or an action was refused; the message is the one line that the person reads."""
