"""The one exception for what a person can mend."""


class UserError(Exception):
    """Bad input or surroundings, told in one line: what was wrong, where, what to do."""
