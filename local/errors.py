"""What stops a local command."""


class SetupError(Exception):
    """Something about this machine or its settings; the message is one sentence for the person at the keyboard."""
