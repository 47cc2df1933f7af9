"""What the command line says about a mistake: one line, and an exit code."""

BAD_INPUT = 2
INTERRUPTED = 130


def one_line(error: BaseException) -> str:
    """The message of an error on one line; an operating system's error names its file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
