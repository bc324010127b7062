"""See how sure the model was of each token, and what else it thought of."""

import math
import sys

from bestiary import LLM, SamplingParams

llm = LLM(*sys.argv[1:2])
params = SamplingParams(temperature=0, max_tokens=6, logprobs=3)
answer = llm.generate("The capital of Germany is", params)[0].outputs[0]
for token, entries in zip(answer.token_ids, answer.logprobs or [], strict=True):
    others = [
        f"{llm.tokenizer.piece(i).decode(errors='replace')!r} {math.exp(entry.logprob):.0%}"
        for i, entry in entries.items()
        if i != token
    ]
    chosen = llm.tokenizer.piece(token).decode(errors="replace")
    print(f"{chosen!r:>14} {math.exp(entries[token].logprob):4.0%}   {'  '.join(others)}")
