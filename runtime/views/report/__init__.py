"""What a session leaves for people to read: derived from its log, written beside it, made again whenever it is lost."""

JOB = "runtime.views.report.job:main"
"""What writes the files of one session, in a child."""
