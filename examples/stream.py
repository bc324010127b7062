"""Print an answer as it comes. Ctrl-C ends it: the last chunk says so, and the next step raises."""

import sys

from bestiary import LLM, SamplingParams

llm = LLM(*sys.argv[1:2])
question = [{"role": "user", "content": "Name three rivers of Europe."}]
try:
    for chunk in llm.stream(question, SamplingParams(temperature=0, max_tokens=64)):
        print(chunk.text, end="", flush=True)
        if chunk.finish_reason is not None:
            print(f"\n({chunk.finish_reason})")
except KeyboardInterrupt:
    print("stopped, the program goes on")
