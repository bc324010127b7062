"""A conversation with a memory: each turn computes only what the last one has not."""

import sys
import time

from bestiary import LLM, SamplingParams

llm = LLM(*sys.argv[1:2])
session = llm.session()
greedy = SamplingParams(temperature=0, max_tokens=40)
messages = [{"role": "system", "content": "You answer in one sentence."}]
for question in ("What is the capital of France?", "Which river runs through it?"):
    messages.append({"role": "user", "content": question})
    known, start = len(session.ids), time.perf_counter()
    output = llm.chat(messages, greedy, session=session)[0]
    seconds = time.perf_counter() - start
    messages.append({"role": "assistant", "content": output.text})
    print(f"> {question}\n{output.text}")
    print(f"({len(output.prompt_token_ids)} tokens of prompt, {known} of them known before; {seconds:.1f} s)")
