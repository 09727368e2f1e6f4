"""What is said where the light is lost and comes back: by a plan that looks for it, and by what suspends any plan."""

GOING_ON = "the light is back; going on"


def waiting(why: str) -> str:
    """Say what is waited for.

    >>> waiting("front_end: closed")
    'front_end: closed; waiting with the shutter closed'
    """
    return f"{why}; waiting with the shutter closed"


def going_on_in(recovery_s: float) -> str:
    """Say that the light is back, and has to stay for some time.

    >>> going_on_in(30.0)
    'the light is back; going on in 30 s'
    """
    return f"{GOING_ON} in {recovery_s:g} s"


def repeated(reason: str, *, was_lit: bool) -> str:
    """Say that an exposure is taken again; one that was without light adds no loss to the one that was told.

    >>> repeated("ccd: no frame within 31 s", was_lit=True)
    'ccd: no frame within 31 s; taken again'
    >>> repeated("front_end: closed", was_lit=False)
    'hit by the loss of light (front_end: closed); taken again'
    """
    return (
        f"{reason}; taken again" if was_lit else f"hit by the loss of light ({reason}); taken again"
    )
