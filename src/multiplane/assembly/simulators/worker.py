"""The process around a backend: `python worker.py sequence_backend` reads questions and writes answers.

A line of JSON on standard input is a question, a line on standard output its answer; whatever the simulator
prints goes to standard error. When standard input ends, nobody is left to answer: the process group ends,
even in the middle of a run.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any


def listen(descriptor: int, questions: "queue.Queue[bytes]") -> None:
    """Hand on each line; end the whole group when there are no more."""
    rest = b""
    while piece := os.read(descriptor, 65_536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            questions.put(line)
    os.killpg(0, signal.SIGKILL)


def answer(backend: Any, question: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question; what the backend cannot do is an error in words."""
    try:
        job = question.get("run")
        if job is None:
            return {"id": question["id"], "facts": backend.describe()}
        return {"id": question["id"], "outcome": {"kind": job["kind"], **backend.run(job)}}
    except Exception as error:
        return {"id": question["id"], "error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Serve one backend until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A simulator that forks closes sys.stdin in the child, and would wait for ever if a thread here reads it.
    asked = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if os.getpgrp() != os.getpid():
        os.setsid()
    sys.path.insert(0, str(Path(__file__).parent))
    backend = importlib.import_module(sys.argv[1])
    questions: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=listen, args=(asked, questions), daemon=True).start()
    while True:
        answers.write(json.dumps(answer(backend, json.loads(questions.get()))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
