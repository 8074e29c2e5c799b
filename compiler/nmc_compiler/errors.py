"""The error hierarchy of nmc, in one file.

Every text says what went wrong, where, the numbers, and the next step; the
command line prints it without a traceback and exits with status 1.
"""


class NmcError(Exception):
    """Base of every error that nmc raises on purpose."""


class UsageError(NmcError):
    """The caller asked for something that cannot be meant (exit status 2)."""


class FrontendError(NmcError):
    """A checkpoint, configuration or input file does not say what it should."""


class VerifyError(NmcError):
    """A graph or a Program breaks a rule of its own format."""


class LoweringError(NmcError):
    """A graph asks for something that the target or the compiler cannot express."""


class CapacityError(NmcError):
    """A network does not fit: names layer, core, resource, used/limit and the nearest fix.

    ``shortage``: where a core has too little of something, layer, resource, what is needed of it and what there is.
    """

    shortage: tuple[str, str, int, int] | None = None


class ArtefactError(NmcError):
    """A file written by nmc is damaged, incomplete or of another version."""


class LinkError(NmcError):
    """A board or virtual board did not answer as the protocol asks."""


class ToolNotFound(NmcError):
    """An external tool or optional package is missing; the text says how to get it."""
