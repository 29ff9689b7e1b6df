"""REPORT: one self-contained HTML page. Draws, computes nothing."""

from synthaug.report.page import Arm, HeldOut, Page, Score, write_page

__all__ = ["Arm", "HeldOut", "Page", "Score", "write_page"]
