"""Model cards drafted from a file: what it declares, and what can be measured."""

from hrviewer.models.drafting.draft import CardAnswers, draft_card
from hrviewer.models.drafting.measurement import Measurement, measure_file

__all__ = ["CardAnswers", "Measurement", "draft_card", "measure_file"]
