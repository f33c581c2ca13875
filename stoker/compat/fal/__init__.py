"""For code written for fal: point its client here (``patch``), or serve its app files with other imports."""

from stoker.compat.fal import toolkit
from stoker.compat.fal.app import App, endpoint
from stoker.compat.fal.client import patch
from stoker.compat.fal.streams import Response, StreamingResponse

__all__ = ["App", "Response", "StreamingResponse", "endpoint", "patch", "toolkit"]
