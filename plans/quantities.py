"""Times and sizes as a person reads them, each in the unit that fits."""


def told_time(seconds: float) -> str:
    """Say how long something takes.

    >>> told_time(0), told_time(42.4), told_time(798), told_time(117_000)
    ('0 s', '42 s', '13 min', '32.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def told_size(count: float) -> str:
    """Say how many bytes there are.

    >>> told_size(8_800), told_size(3_842_048), told_size(15.2e9), told_size(1.2e12)
    ('9 kB', '3.8 MB', '15.2 GB', '1.20 TB')
    """
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    if count < 999.5e6:
        return f"{count / 1e6:.1f} MB"
    if count < 999.5e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e12:.2f} TB"
