from .base import Source
class SlideSource(Source):
    @classmethod
    def supports(cls, obj): return False
