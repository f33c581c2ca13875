"""Echo: an app without a model. It shows an input, progress, a log line, a result and a file, on any machine."""

from __future__ import annotations

from pydantic import BaseModel, Field

from stoker import App, File, endpoint


class Say(BaseModel, extra="forbid"):
    text: str = Field(min_length=1, max_length=2000)
    times: int = Field(default=3, ge=1, le=100)


class Said(BaseModel):
    text: str
    transcript: File


class Echo(App):
    """Says your text back as often as you like."""

    name = "examples/echo"

    @endpoint("/", run_timeout=60)
    async def say(self, request: Say) -> Said:
        """Repeat the text and write it into a file."""
        self.log(f"saying {request.text!r} {request.times} times")
        lines = []
        for step in range(1, request.times + 1):
            lines.append(request.text)
            self.progress(step=step, total=request.times)
        transcript = File.from_bytes("\n".join(lines).encode(), content_type="text/plain", file_name="transcript.txt")
        return Said(text=" ".join(lines), transcript=transcript)
