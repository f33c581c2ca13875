"""A channel: what the parent shares with one rank beside the sockets, its window, the way for large
frames, and its lifeline.

The rank inherits the other ends. What is sent and when is the business of ``pool``.
"""

from __future__ import annotations

import dataclasses
import os

from worker_node.distributed.cancel_flag import CancelFlag
from worker_node.distributed.hub import Hub
from worker_node.distributed.lifeline import Lifeline
from worker_node.distributed.link import Wiring
from worker_node.distributed.messages import Message
from worker_node.distributed.segments import Segments
from worker_node.distributed.window import ReceiveWindow


class Channel:
    """The parent's end, one for each rank."""

    def __init__(self) -> None:
        self.window = ReceiveWindow()
        try:
            self.lifeline = Lifeline()
        except BaseException:
            self.window.close()
            raise
        try:
            self._segments, self._theirs = Segments.pair()
        except BaseException:
            self.window.close()
            self.lifeline.close()
            raise

    def wiring(self, hub: Hub, flag: CancelFlag) -> Wiring:
        """Say what the rank inherits; before ``handed_over``."""
        return Wiring(
            commands_fd=hub.commands_fd,
            reports_fd=hub.reports_fd,
            window_fd=self.window.fd,
            segments_fd=self._theirs.fileno(),
            lifeline_fd=self.lifeline.rank_fd,
            flag_fd=flag.fd,
            token=hub.token.hex(),
            parent_pid=os.getpid(),
        )

    def handed_over(self) -> None:
        """Close the rank's end here: the rank has it, or never will."""
        self._theirs.close()
        self.lifeline.handed_over()

    def outgoing(self, message: Message) -> Message:
        """Send what is large ahead of a message; return what is left of it."""
        value, given = self._segments.give(message.value)
        return dataclasses.replace(message, value=value, given=given) if given else message

    def incoming(self, message: Message) -> Message:
        """Put what came ahead of a message back into it. In the order in which the messages came.

        Raises:
            SerializationFailed: it did not arrive, and never will.
        """
        if not message.given:
            return message
        return dataclasses.replace(message, value=self._segments.take(message.value, message.given), given=())

    def close(self) -> None:
        """Close all of it."""
        self.window.close()
        self._segments.close()
        self._theirs.close()
        self.lifeline.close()
