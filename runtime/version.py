"""The version of this software, in one place: looking it up among installed packages takes longer than any help page."""

VERSION = "0.1.0"
