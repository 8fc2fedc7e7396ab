"""Errors a user can mend.

Every message is one line that names the file or option and says how to mend it; the command line prints it and exits
with code 2. Anything else that escapes is a bug and shows its traceback.
"""


class PmvError(Exception):
    """Base of all errors that are the input's fault, not the program's."""


class InputError(PmvError):
    """A photo, mask, camera, edit, configuration or run folder cannot be used."""


class CheckpointError(PmvError):
    """A generator checkpoint is unknown, damaged, of an unsupported kind, or hostile."""


class AssetsError(PmvError):
    """Data that pmv needs from elsewhere (MakeHuman assets, pretrained weights) is missing or incomplete."""
