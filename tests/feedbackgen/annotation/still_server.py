"""Serves a session with clips that need no simulator, in a process of its own: FILE PORT [MP4]."""

import sys
from pathlib import Path

from people import StillClips

from feedbackgen.annotation.answers import Answers
from feedbackgen.annotation.server import Door, create_app, serve

if __name__ == "__main__":
    door = Door(port=int(sys.argv[2]))
    answers = Answers(Path(sys.argv[1]))
    clips = StillClips(Path(sys.argv[3]).read_bytes() if len(sys.argv) > 3 else None)
    serve(create_app(answers, clips, door), door, started=lambda address: print(address, flush=True))
