"""Serves a session with clips that need no simulator, in a process of its own: FILE PORT."""

import sys
from pathlib import Path

from people import StillClips

from feedbackgen.annotation.answers import Answers
from feedbackgen.annotation.server import Door, create_app, serve

if __name__ == "__main__":
    door = Door(port=int(sys.argv[2]))
    answers = Answers(Path(sys.argv[1]))
    serve(create_app(answers, StillClips(), door), door, started=lambda: print("started", flush=True))
