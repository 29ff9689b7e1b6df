"""REPORT: one self-contained HTML page. Draws, computes nothing."""

from synthaug.report.page import Arm, HeldOut, Page, Score, write_page
from synthaug.report.scores import score_rows

__all__ = ["Arm", "HeldOut", "Page", "Score", "score_rows", "write_page"]
