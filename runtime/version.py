"""The version of this software, in one place: to look it up among packages takes longer than any help page."""

VERSION = "0.1.0"
