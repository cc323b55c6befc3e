"""The one exception for what a user can mend."""


class UserError(ValueError):
    """Something the user gave cannot work. The message names the field, the value, and what to do instead."""
