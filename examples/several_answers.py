"""Draw several answers. The same seed gives the same ones, whatever else runs."""

import sys

from bestiary import LLM, SamplingParams

llm = LLM(*sys.argv[1:2])
params = SamplingParams(n=3, seed=7, temperature=0.9, top_p=0.95, max_tokens=24, stop="\n")
output = llm.generate("The lighthouse keeper opened the door and", params)[0]
for answer in output.outputs:
    print(f"{answer.index}: ...{answer.text} ({answer.finish_reason})")
