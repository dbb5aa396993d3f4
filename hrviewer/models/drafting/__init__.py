"""Model cards drafted from a file: what it declares, and what can be measured."""

from hrviewer.models.drafting.draft import CardAnswers, draft_card
from hrviewer.models.drafting.measurement import MeasuredFile, measure_file

__all__ = ["CardAnswers", "MeasuredFile", "draft_card", "measure_file"]
