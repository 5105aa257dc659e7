"""A page for people from any tree of result.json: Markdown, HTML, PNG."""

from pipeline.report.command import NoResultError, main, write_report

__all__ = ["NoResultError", "main", "write_report"]
