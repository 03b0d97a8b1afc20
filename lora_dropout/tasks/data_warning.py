"""The warning of the text tasks; here, so that a command can know it before it imports them."""


class DataWarning(UserWarning):
    """Something in the data or the model that a reader of the results should know."""
