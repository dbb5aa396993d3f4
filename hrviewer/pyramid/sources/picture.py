from .base import Source
class PictureSource(Source):
    @classmethod
    def supports(cls, obj): return False
