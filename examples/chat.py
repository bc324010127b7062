"""Ask one question. Any example takes another model's name or path as its argument."""

import sys

from bestiary import LLM, SamplingParams

llm = LLM(*sys.argv[1:2])
question = [{"role": "user", "content": "What is the capital of France?"}]
print(llm.chat(question, SamplingParams(temperature=0))[0].text)
